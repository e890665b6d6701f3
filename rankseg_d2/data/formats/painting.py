"""Paint masks into one map; where masks overlap, the last one wins."""

from collections.abc import Iterable, Sequence

import numpy as np

from .json_checks import usable
from .mask_checks import check_masks
from .rle import decode, to_rle


def paint(masks: Iterable[np.ndarray], values: Iterable[int], background: np.ndarray) -> np.ndarray:
    """`background` (H, W), changed in place: each bool mask (H, W) sets its value, in order."""
    for mask, value in zip(masks, values, strict=True):
        background[mask] = value
    return background


def paint_categories(
    annotations: Sequence[tuple[int, dict | list]], height: int, width: int, where: str
) -> np.ndarray:
    """(category id, polygons or RLE) pairs -> category id of each pixel, 0 for none: (H, W).

    UnreadableError, with `where`, if a mask is damaged.
    """
    pairs = [(category_id, kept) for category_id, shape in annotations if (kept := usable(shape))]
    check_masks([{"segmentation": shape} for _, shape in pairs], (height, width), where)
    masks = (decode(to_rle(shape, height, width)) for _, shape in pairs)
    ids = (category_id for category_id, _ in pairs)
    return paint(masks, ids, np.zeros((height, width), np.int64))


def paint_segments(
    numbers: np.ndarray, categories: Sequence[int], background: int
) -> np.ndarray:
    """Segment number of each pixel (H, W), from 1, 0 for none -> its category (H, W)."""
    return np.array([background, *categories], np.int32)[numbers]
