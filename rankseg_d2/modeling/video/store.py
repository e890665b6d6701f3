"""The results of whole videos, held compressed: label maps and masks, frame by frame."""

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...files import inside, write_image

IN_MEMORY = 2**22  # bytes of a video's results; more go to a file


class Store:
    """Pieces of bytes, in memory or, above IN_MEMORY, in a temporary file.

    The file has no name and is deleted with the store.
    """

    def __init__(self):
        self.file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115

    def add(self, content: bytes) -> tuple[int, int]:
        """Append a piece; the result, its (offset, size), is the key for `get`."""
        key = self.file.seek(0, 2), len(content)
        self.file.write(content)
        return key

    def get(self, key: tuple[int, int]) -> bytes:
        begin, size = key
        self.file.seek(begin)
        return self.file.read(size)


class CompressedLabelMaps(Sequence):
    """The label maps of a video's frames, numpy arrays (H, W), uncompressed one at a time."""

    def __init__(self, num_classes: int):
        """Category ids are below `num_classes`; `num_classes` itself means no category."""
        self.dtype = np.uint8 if num_classes < 2**8 else np.uint16
        self.store = Store()
        self.frames = []  # of each frame its key in the store, and (H, W)

    def append(self, labels: np.ndarray) -> None:
        content = zlib.compress(labels.astype(self.dtype).tobytes(), level=1)
        self.frames.append((self.store.add(content), labels.shape))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        key, shape = self.frames[index]
        content = bytearray(zlib.decompress(self.store.get(key)))  # so the array can be changed
        return np.frombuffer(content, self.dtype).reshape(shape)


class LabelWriter:
    """A callback that writes each label map: <folder>/<video_id>/<name of the frame>.png."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def __call__(self, sample: dict, frame: int, labels: np.ndarray) -> None:
        files = sample.get("file_names")
        name = Path(files[frame]).stem if files else f"{frame:05d}"
        folder = self.folder
        if "video_id" in sample:
            folder = inside(folder, str(sample["video_id"]), "the video_id of a sample")
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{name}.png", labels)
