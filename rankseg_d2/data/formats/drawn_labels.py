"""Label maps that are drawn from shapes, polygons or run-length encodings, when they are read."""

from dataclasses import dataclass

import numpy as np

from . import rle
from .polygons import draw_polygons


@dataclass(frozen=True)
class DrawnLabels:
    """The labels of one image: the record's `sem_seg_file_name`, where no label image exists.

    Large shapes are drawn first, so a small one on a large one stays visible.
    """

    source: str  # the file with the shapes, for errors
    shapes: list[tuple[int, list | dict]]  # class id or ignored label, COCO's polygons or RLE
    size: tuple[int, int]  # height, width
    background: int  # class id or ignored label of the other pixels

    def __str__(self) -> str:
        return self.source

    def draw(self) -> np.ndarray:
        """Class ids and ignored labels: (H, W)."""
        labels = np.full(self.size, self.background, np.int32)
        pieces = [(label, *_mask(shape, self.size)) for label, shape in self.shapes]
        for label, top, left, mask in sorted(pieces, key=lambda piece: -piece[-1].sum()):
            height, width = mask.shape
            labels[top : top + height, left : left + width][mask] = label
        return labels


def _mask(shape: list | dict, size: tuple[int, int]) -> tuple[int, int, np.ndarray]:
    """The pixels of a shape, and the position of their window: (top, left, (h, w))."""
    if isinstance(shape, dict):
        return 0, 0, rle.decode(rle.to_rle(shape, *size))
    return draw_polygons([np.array(polygon, float).reshape(-1, 2) for polygon in shape], size)
