"""Masks painted into one map: the last mask that has a pixel gives its value."""

from collections.abc import Iterable, Sequence

import numpy as np

from .rle import decode, to_rle


def paint(masks: Iterable[np.ndarray], values: Iterable[int], background: np.ndarray) -> np.ndarray:
    """The value of each pixel, of the last mask (H, W) bool that has it; changes `background`."""
    for mask, value in zip(masks, values, strict=True):
        background[mask] = value
    return background


def paint_categories(
    annotations: Sequence[tuple[int, dict | list]], height: int, width: int
) -> np.ndarray:
    """The category id of each pixel, 0 is none, of (category id, polygons or RLE): (H, W)."""
    masks = (decode(to_rle(shape, height, width)) for _, shape in annotations)
    ids = (category_id for category_id, _ in annotations)
    return paint(masks, ids, np.zeros((height, width), np.int64))


def paint_segments(
    places: np.ndarray, categories: Sequence[int], background: int
) -> np.ndarray:
    """The category of each pixel: (H, W) places of its segment, from 1, 0 for none -> (H, W)."""
    return np.array([background, *categories], np.int32)[places]
