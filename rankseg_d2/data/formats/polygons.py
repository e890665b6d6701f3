"""Draw polygons as pycocotools does."""

import numpy as np

from . import rle
from .mask_checks import outline_is_too_long

_GRID = 5  # pycocotools rounds corners to fifths of a pixel


def draw_polygons(
    polygons: list[np.ndarray], size: tuple[int, int]
) -> tuple[int, int, np.ndarray]:
    """The union of polygons (n, 2), corners (x, y), in a window of `size`: (top, left, pixels).

    The pixels are those of the polygons' bounding box. Polygons may extend beyond the window, which
    is at the origin; they are drawn as on a larger canvas and cropped.
    """
    corners = np.concatenate([np.zeros((0, 2)), *polygons])
    low = np.clip(np.floor(corners.min(0, initial=np.inf)) - 1, 0, size[::-1])
    high = np.clip(np.ceil(corners.max(0, initial=-np.inf)) + 1, low, size[::-1])
    (left, top), (width, height) = low.astype(int).tolist(), (high - low).astype(int).tolist()
    if not width or not height:
        return top, left, np.zeros((height, width), bool)
    if outline_is_too_long(polygons):
        raise ValueError("its augmented polygons are too long to draw; remove corners")
    flat = [_shift(polygon, low).ravel().tolist() for polygon in polygons]
    return top, left, rle.decode(rle.to_rle(flat, height, width))


def _shift(polygon: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Corners relative to `origin` that pycocotools rounds to the same fifths of a pixel.

    It adds 1/2 and truncates, which does not round negative corners; these are moved down to the
    middle of their interval.
    """
    fifths = np.floor(_GRID * polygon + 0.5) - _GRID * origin
    return (fifths - 0.9 * (fifths < 0)) / _GRID
