"""The packed masks of COCO annotations, polygons, RLEs or arrays, as pycocotools draws them."""

import numpy as np

from ..formats import rle
from .packed_masks import pack


def draw_shapes(shapes: list, size: tuple[int, int]) -> np.ndarray:
    """The packed masks (see `pack`) of polygons, COCO's RLEs or arrays (H, W) of `size`."""
    masks = rle.decode_columns([_as_rle(shape, size) for shape in shapes])  # (N, W, H)
    pieces = [(0, 0, mask) for mask in masks]
    return np.ascontiguousarray(pack(pieces, size[::-1]).swapaxes(-2, -1))


def _as_rle(shape, size: tuple[int, int]) -> dict:
    """The mask as COCO's compressed RLE."""
    if isinstance(shape, list) and not shape:
        shape = np.zeros(size)
    if isinstance(shape, np.ndarray):
        return rle.encode(shape.astype(bool))
    return rle.to_rle(shape, *size)
