"""The labels of persons and their parts: one part map per person, or a map of person numbers."""

from dataclasses import dataclass

import numpy as np

from .image_files import UnreadableError, read_labels
from .label_images import present_values


@dataclass(frozen=True)
class PersonLabels:
    """The persons of one image: the record's `person_labels`.

    A part map has 0 for background, and the parts 1 to `num_parts` - 1; the class that follows,
    `num_parts`, is a whole person.
    """

    files: tuple[str, ...]  # the part maps, one per person; with `numbers`, one of all persons
    num_parts: int  # with background
    numbers: str = ""  # file with the number of the person of each pixel, 0 for none
    first_channel: bool = False  # of three that differ, the first one holds the parts

    def __str__(self) -> str:
        return self.numbers or (self.files[0] if self.files else "no file")

    @property
    def paths(self) -> list[str]:
        """All files."""
        return [*self.files, *filter(None, [self.numbers])]

    def read(self) -> np.ndarray:
        """The part map of each person, 0 outside of it: (G, H, W) uint8; none without a pixel."""
        maps = self._part_maps()
        size = maps[0].shape if maps else (0, 0)
        if self.numbers:
            (parts,), numbers = maps, _channel(self.numbers)
            _check_size(self.numbers, numbers, self.files[0], parts)
            present = present_values(numbers)
            maps = [np.where(numbers == i, parts, 0) for i in present[present > 0]]
        maps = [one for one in maps if one.any()]
        return np.stack(maps) if maps else np.zeros((0, *size), np.uint8)

    def merged(self) -> np.ndarray:
        """The part of each pixel (H, W) uint8; where persons overlap, that of the first file."""
        first, *others = self._part_maps()
        merged = first.copy()
        for one in others:
            np.copyto(merged, one, where=merged == 0)
        return merged

    def classes(self) -> list[int]:
        """The classes of the image, ascending: background and parts and, if it has one, person."""
        merged = self.merged()
        return [*present_values(merged).tolist(), *([self.num_parts] if merged.any() else [])]

    def _part_maps(self) -> list[np.ndarray]:
        maps = [self._part_map(path) for path in self.files]
        for path, one in zip(self.files[1:], maps[1:], strict=True):
            _check_size(path, one, self.files[0], maps[0])
        return maps

    def _part_map(self, path: str) -> np.ndarray:
        values = _channel(path, self.first_channel)
        if values.max(initial=0) >= self.num_parts:
            raise ValueError(
                f"the part map {path} has the value {values.max()}, but its data set has 0 "
                f"(background) to {self.num_parts - 1}; download the data set again"
            )
        return values.astype(np.uint8)


def _channel(path: str, first: bool = False) -> np.ndarray:
    """The values of a file of one channel, or of three: equal ones, or the `first` one."""
    values = np.asarray(read_labels(path, "part map"))
    if values.ndim == 3 and (first or (values[..., :1] == values[..., 1:3]).all()):
        return values[..., 0]
    if values.ndim != 2:
        raise UnreadableError(
            f"the part map {path} has {values.shape[2]} channels that differ; this data set has "
            "grey ones: download it again"
        )
    return values


def _check_size(path: str, values: np.ndarray, other_path: str, other: np.ndarray) -> None:
    if values.shape != other.shape:
        (h, w), (other_h, other_w) = values.shape, other.shape
        raise ValueError(
            f"the part map {path} is {w} x {h} (width x height), but {other_path} of the same "
            f"image is {other_w} x {other_h}; download the data set again"
        )
