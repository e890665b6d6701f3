"""Where names stand: at the widest spot of each region, and never on top of each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .text import line_height, text_width

_LONGEST_SIDE = 480  # of the reduced map in which spots are searched
_INSIDE = 0.7  # of a label's height and width must lie in its region


@dataclass(frozen=True)
class Label:
    """A text, and the pixels of the pill around it."""

    text: str
    x: int
    y: int
    width: int
    height: int

    def meets(self, other: "Label") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def place_labels(
    index: np.ndarray, texts_of: Callable[[int], Sequence[str]], size: int
) -> list[Label]:
    """The labels that fit, those of large regions first.

    Args:
        index: (H, W), the number of the region of each pixel, from 1; 0 is none.
        texts_of: region number -> the texts that may name it, the best one first.
        size: of the letters, in pixels.
    """
    step = -(-max(index.shape) // _LONGEST_SIDE)
    small = np.ascontiguousarray(index[step // 2 :: step, step // 2 :: step])
    placed: list[Label] = []
    # A label covers about 1.5 * size**2 pixels, even of a short name.
    for number, box, mask in _regions(small, size**2 * _INSIDE**2 / step**2):
        for text in dict.fromkeys(texts_of(number)):
            label = _place(text, mask, box, step, size, placed, index.shape)
            if label is not None:
                placed.append(label)
                break
    return placed


def _regions(
    small: np.ndarray, min_area: float
) -> Iterator[tuple[int, tuple[int, int], np.ndarray]]:
    """(number, x and y of its box, mask in the box) of each region, the largest first."""
    counts = np.bincount(small.ravel())
    numbers = np.flatnonzero(counts)
    ends = counts[numbers].cumsum()
    order = small.ravel().argsort(kind="stable")  # pixels, region by region
    starts = ends - counts[numbers]
    rows = order[starts] // small.shape[1], order[ends - 1] // small.shape[1] + 1
    columns = order % small.shape[1]
    columns = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
    boxes = np.stack([*rows, *columns], 1).tolist()
    for i in np.argsort(-counts[numbers], kind="stable").tolist():
        number, (top, bottom, left, right) = int(numbers[i]), boxes[i]
        if counts[number] < max(min_area, 1):
            return
        if number:
            mask = small[top:bottom, left:right] == number
            yield number, (left, top), mask.view(np.uint8)


def _place(
    text: str,
    mask: np.ndarray,
    corner: tuple[int, int],
    step: int,
    size: int,
    placed: list[Label],
    shape: tuple[int, ...],
) -> Label | None:
    """The label at the widest spot of the mask that is free, or None."""
    height, width = line_height(size), text_width(text, size) + 2 * round(0.35 * size)
    least = _INSIDE**2 * height * width / step**2
    too_large = height > shape[0] or width > shape[1] or np.count_nonzero(mask) < least
    if too_large or not text.strip():
        return None
    free = mask.copy()
    for other in placed:
        _clear(free, corner, step, other, width, height)
    x, y, reach = _widest(free, 1)
    if reach * step < width:  # no square of this width is free
        x, y, reach = _widest(free, width / height)
    if reach * step < _INSIDE * height:
        return None
    x, y = (corner[0] + x) * step - width / 2, (corner[1] + y) * step - height / 2
    x, y = round(min(max(x, 0), shape[1] - width)), round(min(max(y, 0), shape[0] - height))
    label = Label(text, x, y, width, height)
    # At the border of the picture, and by rounding, it may still meet one.
    return None if any(label.meets(other) for other in placed) else label


def _clear(
    free: np.ndarray, corner: tuple[int, int], step: int, label: Label, width: int, height: int
) -> None:
    """Take the pixels where the inner part of a label of this size would meet another label."""
    margin = (1 - _INSIDE) / 2
    left = (label.x - margin * width) / step - corner[0]
    top = (label.y - margin * height) / step - corner[1]
    right = (label.x + label.width + margin * width) / step - corner[0]
    bottom = (label.y + label.height + margin * height) / step - corner[1]
    if right > 0 and bottom > 0:
        free[max(int(top), 0) : int(np.ceil(bottom)), max(int(left), 0) : int(np.ceil(right))] = 0


def _widest(mask: np.ndarray, aspect: float) -> tuple[float, float, int]:
    """Middle x, y of the largest rectangle of this width / height in the mask, and its height.

    In a mask that is squeezed by the aspect the rectangle is a square, and the chessboard distance
    to the next pixel outside is half its side.
    """
    height, width = mask.shape
    squeezed = np.zeros((height + 2, max(round(width / aspect), 1) + 2), np.uint8)
    squeezed[1:-1, 1:-1] = cv2.resize(
        mask, (squeezed.shape[1] - 2, height), interpolation=cv2.INTER_NEAREST
    )
    distance = cv2.distanceTransform(squeezed, cv2.DIST_C, 3)
    _, reach, _, (x, y) = cv2.minMaxLoc(distance)
    # A band of equal distances: its middle, not its first pixel.
    band = distance[y] >= reach
    x_end = x + (len(band) - x if band[x:].all() else int(np.argmin(band[x:])))
    middle = (x + x_end - 1) / 2
    x = (middle - 0.5) * width / (squeezed.shape[1] - 2)
    return x, y - 0.5, max(int(2 * reach) - 1, 0)
