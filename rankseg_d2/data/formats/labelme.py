"""The json that labelme writes for each image."""

import base64
import binascii
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import unknown_name
from ...files import read_json
from . import rle
from .mask_checks import mask_faults

IGNORED = -1
_LARGEST = 1 << 16  # side of an image
_AREAS = ("polygon", "rectangle", "circle", "mask")  # shape types that have an area


class Shape(NamedTuple):
    """An area of an image."""

    label: int  # class id, or IGNORED
    segmentation: list | dict  # COCO's polygons or RLE


def read_labelme(
    path: Path, classes: dict[str, int], image_size: Callable[[], tuple[int, int]]
) -> tuple[tuple[int, int], list[Shape]]:
    """The image's (height, width), and its shapes in the order of the file.

    Shapes of one label and `group_id` are one.

    Args:
        classes: the class id, or IGNORED, of each label.
        image_size: gives height and width where the json has none.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError(f"{path} is not a json of labelme: it has no list `shapes`")
    size = content.get("imageHeight"), content.get("imageWidth")
    if not all(type(side) is int and 0 < side < _LARGEST for side in size):
        size = image_size()
    shapes, groups = [], {}
    for number, entry in enumerate(content["shapes"]):
        where = f"{path}: shapes[{number}]"
        shape = _shape(entry, classes, size, where)
        group = isinstance(entry, dict) and entry.get("group_id")
        if shape is None:
            continue
        if group is None or group is False or isinstance(shape.segmentation, dict):
            shapes.append(shape)
        elif (shape.label, str(group)) in groups:
            groups[shape.label, str(group)].segmentation.extend(shape.segmentation)
        else:
            groups[shape.label, str(group)] = shape
            shapes.append(shape)
    return size, shapes


def labels_of(path: Path) -> list[str]:
    """The labels of the shapes, in the order of the file; [] if it is not a json of labelme."""
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    entries = shapes if isinstance(shapes, list) else []
    labels = [entry.get("label") for entry in entries if isinstance(entry, dict)]
    return list(dict.fromkeys(label for label in labels if isinstance(label, str)))


def _shape(entry: Any, classes: dict, size: tuple[int, int], where: str) -> Shape | None:
    """The area of one entry; None if it has none and its label is ignored."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError(f"{where} must have a label, a text")
    if entry["label"] not in classes:
        raise unknown_name(f"{where}: label, among the classes of the data set",
                           entry["label"], classes)
    label, kind = classes[entry["label"]], entry.get("shape_type", "polygon")
    if kind not in _AREAS:
        if label == IGNORED:
            return None
        raise ValueError(f"{where} is a {kind}, which has no area; draw one of "
                         f"{', '.join(_AREAS)}, or write `values: {{{entry['label']}: ignore}}`")
    try:
        points = np.array(entry["points"], float).reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: points must be a list of [x, y]") from error
    if not np.isfinite(points).all():
        raise ValueError(f"{where} has a point that is not finite; fix or remove the shape")
    if kind == "mask":
        return Shape(label, _mask(entry.get("mask"), points, size, where))
    polygons = [_corners(kind, points, where).ravel().tolist()]
    for fault in mask_faults([polygons], [size]).values():
        raise ValueError(f"{where} {fault}; fix or remove the shape")
    return Shape(label, polygons)


def _corners(kind: str, points: np.ndarray, where: str) -> np.ndarray:
    """The corners of a polygon, rectangle or circle: (n, 2)."""
    if kind == "polygon":
        if len(points) < 3:
            raise ValueError(f"{where} is a polygon of {len(points)} points; it needs 3 or more")
        return points
    if len(points) != 2:
        raise ValueError(f"{where} is a {kind} of {len(points)} points; it needs 2")
    (x, y), (u, v) = points
    if kind == "rectangle":
        return np.array([[x, y], [u, y], [u, v], [x, v]])
    radius = math.hypot(u - x, v - y)  # of a circle: its centre, and a point on it
    angles = np.linspace(0, 2 * np.pi, int(7 * math.sqrt(min(max(radius, 4), 2**16))), False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)


def _mask(text: Any, points: np.ndarray, size: tuple[int, int], where: str) -> dict:
    """The RLE of a mask: a PNG in base64, the first of the `points` is its top left pixel."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        (left, top), (width, height) = np.rint(points[0]).astype(int).tolist(), image.size
        fits = left >= 0 and top >= 0 and top + height <= size[0] and left + width <= size[1]
        if fits:
            mask = np.zeros(size, bool)
            mask[top : top + height, left : left + width] = np.asarray(image.convert("L")) > 0
    except (TypeError, IndexError, OSError, SyntaxError, binascii.Error,
            Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: mask must be a PNG in base64, with two points") from error
    if not fits:
        raise ValueError(f"{where}: the mask of {width} x {height} at ({left}, {top}) is not "
                         f"inside the image of {size[1]} x {size[0]}")
    return rle.encode(mask)
