"""Paint masks into one map; where masks overlap, the last one wins."""

from collections.abc import Iterable, Sequence

import numpy as np

from .rle import decode, to_rle


def paint(masks: Iterable[np.ndarray], values: Iterable[int], background: np.ndarray) -> np.ndarray:
    """`background` (H, W), changed in place: each bool mask (H, W) sets its value, in order."""
    for mask, value in zip(masks, values, strict=True):
        background[mask] = value
    return background


def paint_categories(
    annotations: Sequence[tuple[int, dict | list]], height: int, width: int
) -> np.ndarray:
    """(category id, polygons or RLE) pairs -> category id of each pixel, 0 for none: (H, W)."""
    masks = (decode(to_rle(shape, height, width)) for _, shape in annotations)
    ids = (category_id for category_id, _ in annotations)
    return paint(masks, ids, np.zeros((height, width), np.int64))


def paint_segments(
    numbers: np.ndarray, categories: Sequence[int], background: int
) -> np.ndarray:
    """Segment number of each pixel (H, W), from 1, 0 for none -> its category (H, W)."""
    return np.array([background, *categories], np.int32)[numbers]
