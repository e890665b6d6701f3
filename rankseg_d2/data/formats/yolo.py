"""The text files of YOLO-seg: one per image, one polygon per line."""

from pathlib import Path

import numpy as np

_FORMAT = "a line must be `class x1 y1 x2 y2 x3 y3 ...`, x and y from 0 to 1"
_SLACK = 0.01  # some tools write corners a little outside of the image


def read_yolo(path: Path, classes: dict[int, int], size: tuple[int, int]) -> list:
    """(class id, [[x, y, x, y, ...]]) of each line, in pixels of an image (height, width).

    Args:
        classes: the class id of each number in the file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file") from error
    where = f"{path}, line "
    return [_shape(line.split(), classes, size, f"{where}{number}")
            for number, line in enumerate(lines, 1) if line.strip()]


def is_yolo(path: Path) -> bool:
    """Whether the first line of a file looks like one of YOLO's."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            words = file.readline(100_000).split()
        return len(words) >= 5 and float(words[0]) >= 0 and all(0 <= float(w) <= 1
                                                                for w in words[1:5])
    except (ValueError, OSError):
        return False


def _shape(words: list[str], classes: dict[int, int], size: tuple[int, int], where: str) -> tuple:
    if not words[0].isdecimal() or len(words[0]) > 9:
        raise ValueError(f"{where}: the class is {words[0][:20]!r}; {_FORMAT}")
    number = int(words[0])
    if number not in classes:
        raise ValueError(f"{where}: class {number} is not one of the {len(classes)} classes, "
                         f"0 to {len(classes) - 1}; add its name to them, or fix the file")
    if len(words) == 5:
        raise ValueError(f"{where} is a box and not a polygon, as of a data set for detection; "
                         "masks cannot be learned from boxes: export polygons (segmentation)")
    try:
        corners = np.array(words[1:], float)
    except ValueError as error:
        raise ValueError(f"{where} has a word that is not a number; {_FORMAT}") from error
    if len(corners) < 6 or len(corners) % 2:
        raise ValueError(f"{where} has {len(corners)} coordinates; {_FORMAT}")
    outside = corners[~((corners >= -_SLACK) & (corners <= 1 + _SLACK))]  # NaN too
    if len(outside):
        raise ValueError(f"{where} has the coordinate {outside[0]:g}; {_FORMAT}: divide by the "
                         "width and height of the image")
    corners = corners.clip(0, 1).reshape(-1, 2) * size[::-1]
    return classes[number], [corners.ravel().tolist()]
