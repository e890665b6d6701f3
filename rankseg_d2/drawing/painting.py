"""Whole label maps at once: colours by a table, edges, hatching."""

from collections.abc import Sequence

import cv2
import numpy as np

_LONGEST_TABLE = 2**22

TINT = 0.65  # the share of a colour that lies over an image


def rgb(image: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3) bytes -> (H, W, 3), the image itself where it is that."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"a picture must be a NumPy array, got {type(image).__name__}")
    shape = image.shape[:2] if image.ndim == 3 and image.shape[2] == 1 else image.shape
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if not is_picture or not image.size or image.dtype != np.uint8:
        raise ValueError(
            "a picture must be (H, W) or (H, W, 3) of uint8, with a pixel at least, got "
            f"{image.shape} of {image.dtype}"
        )
    if len(shape) == 3:
        return image
    return np.repeat(image.reshape(*shape, 1), 3, 2)


def check_map(labels: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """ValueError unless it is a map of integers of the picture's size."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iub":
        found = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ValueError(f"{name} must be an array of integers, got {found}")
    if labels.shape != shape[:2]:
        raise ValueError(
            f"{name} has size {labels.shape}, the picture {tuple(shape[:2])}; give both in one size"
        )


def positions(values: np.ndarray, known: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each value stands in `known`, from 1; 0 for others: (H, W) uint8, uint16 or int32."""
    known = np.asarray(known, np.int64).reshape(-1)
    count = len(known)
    small = smallest_type(count)
    numbers = np.arange(1, count + 1).astype(small)
    if not values.size or not count:
        return np.zeros(values.shape, small)
    low, high = int(values.min()), int(values.max())
    if high - low > _LONGEST_TABLE:
        order = known.argsort(kind="stable")
        spots = np.searchsorted(known[order], values).clip(0, count - 1)
        return np.where(known[order][spots] == values, numbers[order][spots], small(0))
    if low < 0 or high > _LONGEST_TABLE:
        wide = np.int64 if values.dtype.kind == "i" else values.dtype.type
        values = values.astype(wide) - wide(low)
        known, high = known - low, high - low
    found = (known >= 0) & (known <= high)
    table = np.zeros(high + 1, small)
    table[known[found]] = numbers[found]
    return np.take(table, values.astype(np.int64, copy=False), mode="clip")


def smallest_type(largest: int) -> type[np.integer]:
    """The type of the smallest map of numbers from 0 on."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32


def paint_by(index: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The colours of a table (N, 3) uint8 at each pixel of an index map: (H, W) -> (H, W, 3)."""
    words = np.zeros((len(table), 4), np.uint8)
    words[:, :3] = table
    picture = np.take(words.view(np.uint32)[:, 0], index, mode="clip")  # one word a pixel: fast
    return cv2.cvtColor(picture.view(np.uint8).reshape(*index.shape, 4), cv2.COLOR_RGBA2RGB)


def label_picture(
    labels: np.ndarray, colors: np.ndarray, ids: np.ndarray | None = None
) -> np.ndarray:
    """Labels in plain colours (H, W, 3): what is no class is black, edges between ids white."""
    table = np.concatenate([np.zeros((1, 3), np.uint8), np.asarray(colors, np.uint8)])
    picture = paint_by(positions(labels, range(len(colors))), table)
    if ids is not None:
        picture[edges_of(ids)] = 255
    return picture


def tinted(
    image: np.ndarray, labels: np.ndarray, colors: np.ndarray, ids: np.ndarray | None = None
) -> np.ndarray:
    """Labels over an image (H, W, 3): what is no class is hatched, edges between ids are white."""
    is_class = (labels >= 0) & (labels < len(colors))
    picture = cv2.addWeighted(image, 1 - TINT, label_picture(labels, colors), TINT, 0)
    picture[~is_class] = image[~is_class]
    hatch(picture, ~is_class)
    if ids is not None:
        picture[edges_of(ids)] = 255
    return picture


def edges_of(ids: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one above them or to the left: (H, W) bool."""
    edges = np.zeros(ids.shape, bool)
    edges[1:] = ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    return edges


def hatch(picture: np.ndarray, where: np.ndarray) -> None:
    """Grey diagonal stripes over the pixels `where` (H, W) bool, in place; the rest shows through.

    For pixels that have no label, or are ignored.
    """
    period = max(min(where.shape) // 40, 6)
    y, x = np.indices(where.shape, np.int32, sparse=True)
    stripes = (x + y) % period < period // 3
    for area, color, share in ((where & stripes, 95, 0.7), (where & ~stripes, 225, 0.5)):
        picture[area] = (picture[area] * (1 - share) + color * share).round()
