"""The frames of videos: read one at a time, and as records of images."""

import re
from collections.abc import Callable, Sequence

from torch import Tensor

from .image_files import UnreadableError, image_size


class LazyFrames(Sequence):
    """The frames of a video (3, H, W); each is read on access and not kept.

    An index gives one frame, a slice a list of frames. Pickling stores the paths and `read`, which
    reads the frame of a path.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[str], Tensor]) -> None:
        self.paths = list(paths)
        self.read = read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self.read(path) for path in self.paths[index]]
        return self.read(self.paths[index])

    def __repr__(self) -> str:
        return f"LazyFrames({len(self)} frames from {self.paths[0]})"


def frame_record(record: dict, index: int) -> dict:
    """One frame of a video's record, as the record of an image."""
    frame = {key: record[key] for key in ("video_id", "height", "width") if key in record}
    frame["file_name"] = record["file_names"][index]
    if "sem_seg_file_names" in record:
        frame["sem_seg_file_name"] = record["sem_seg_file_names"][index]
    if "annotations" in record:
        frame["annotations"] = record["annotations"][index]
    return frame


def frame_records(record: dict) -> list[dict]:
    """All frames of a video's record, as records of images."""
    return [frame_record(record, index) for index in range(len(record["file_names"]))]


def flat_record(record: dict) -> dict:
    """A video's record with the annotations of all frames in one list; other records unchanged."""
    if "file_names" not in record or "annotations" not in record:
        return record
    return record | {"annotations": [note for frame in record["annotations"] for note in frame]}


def video_size(paths: Sequence[str]) -> dict[str, int]:
    """{"height": H, "width": W} of the first frame that can be read.

    Unreadable frames raise an error only when they are used.
    """
    first = None
    for path in paths:
        try:
            height, width = image_size(path, "frame")
        except UnreadableError as error:
            first = first or error
        else:
            return {"height": height, "width": width}
    raise first


def natural_order(name: str) -> list:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
