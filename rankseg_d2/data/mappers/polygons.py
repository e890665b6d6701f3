"""Masks of COCO annotations: polygons, run lengths or arrays, drawn as pycocotools draws them."""

import numpy as np

from ..formats import rle
from .packed_masks import pack

GRID = 5  # pycocotools rounds corners to fifths of a pixel


def draw_polygons(polygons: list[np.ndarray], size: tuple[int, int]):
    """The union of polygons (n, 2), corners (x, y), in a window of `size`: (top, left, pixels).

    The pixels are those of the polygons' box. As if drawn on a large canvas of which the window was
    cut out, at the origin: polygons may reach beyond it.
    """
    corners = np.concatenate([np.zeros((0, 2)), *polygons])
    low = np.clip(np.floor(corners.min(0, initial=np.inf)) - 1, 0, size[::-1])
    high = np.clip(np.ceil(corners.max(0, initial=-np.inf)) + 1, low, size[::-1])
    (left, top), (width, height) = low.astype(int).tolist(), (high - low).astype(int).tolist()
    if not width or not height:
        return top, left, np.zeros((height, width), bool)
    flat = [_shift(polygon, low).ravel().tolist() for polygon in polygons]
    return top, left, rle.decode(rle.to_rle(flat, height, width))


def _shift(polygon: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Corners relative to `origin`, of which pycocotools takes the same fifths of a pixel.

    It adds 1/2 and cuts off, which is not rounding where corners are negative; these are moved down
    to the middle between two cuts.
    """
    fifths = np.floor(GRID * polygon + 0.5) - GRID * origin
    return (fifths - 0.9 * (fifths < 0)) / GRID


def draw_shapes(shapes: list, size: tuple[int, int]) -> np.ndarray:
    """What `pack` makes of masks of `size`: polygons, COCO's RLEs, arrays (H, W)."""
    masks = rle.decode_columns([_as_rle(shape, size) for shape in shapes])  # (N, W, H)
    pieces = [(0, 0, mask) for mask in masks]
    return np.ascontiguousarray(pack(pieces, size[::-1]).swapaxes(-2, -1))


def _as_rle(shape, size: tuple[int, int]) -> dict:
    """The mask as COCO's compressed RLE."""
    if isinstance(shape, list) and not shape:
        shape = np.zeros(size)
    if isinstance(shape, np.ndarray):
        return rle.encode(shape.astype(bool))
    shape = rle.to_rle(shape, *size)
    if tuple(shape["size"]) != tuple(size):
        raise ValueError(
            f"a mask is {shape['size'][1]} x {shape['size'][0]} (width x height), but its image "
            f"{size[1]} x {size[0]}; they must be of one size"
        )
    return shape
