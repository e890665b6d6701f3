"""Masks as COCO's compressed run-length encoding (RLE), through pycocotools."""

from collections.abc import Sequence

import numpy as np

_AT_ONCE = 255  # pycocotools 2.0.11 raises OverflowError for the areas of more


def encode(mask: np.ndarray) -> dict:
    """The RLE of one mask (H, W)."""
    return encode_each(mask[None])[0]


def encode_each(masks: np.ndarray) -> list[dict]:
    """The RLEs of masks (N, H, W)."""
    return encode_columns(np.ascontiguousarray(masks.transpose(0, 2, 1)))


def encode_columns(columns: np.ndarray) -> list[dict]:
    """The RLEs of masks stored column by column, as RLEs are: (N, W, H)."""
    from pycocotools import mask as coco

    return coco.encode(columns.view(np.uint8).T) if len(columns) else []


def decode(rle: dict) -> np.ndarray:
    """The mask (H, W) bool of a compressed RLE."""
    from pycocotools import mask as coco

    return coco.decode(rle).astype(bool)


def decode_columns(rles: Sequence[dict]) -> np.ndarray:
    """The masks of RLEs, stored column by column: (N, W, H) bool."""
    from pycocotools import mask as coco

    return coco.decode(list(rles)).T.view(bool)


def to_rle(segmentation: dict | list, height: int, width: int) -> dict:
    """One compressed RLE of polygons, or of a compressed or uncompressed RLE."""
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        return coco.merge(coco.frPyObjects(segmentation, height, width))
    return compressed(segmentation)


def compressed(rle: dict) -> dict:
    """The RLE with its counts compressed."""
    from pycocotools import mask as coco

    return coco.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle


def as_text(rle: dict) -> dict:
    """The compressed RLE with its counts as text, for json."""
    counts = rle["counts"]
    counts = counts.decode() if isinstance(counts, bytes) else counts
    return {"size": list(rle["size"]), "counts": counts}


def box(rle: dict) -> list[float]:
    """x, y, width, height of the mask."""
    from pycocotools import mask as coco

    return coco.toBbox(rle).tolist()


def areas(rles: Sequence[dict]) -> np.ndarray:
    """Pixels of each of N compressed RLEs: (N,)."""
    from pycocotools import mask as coco

    parts = [list(rles[i : i + _AT_ONCE]) for i in range(0, len(rles), _AT_ONCE)]
    return np.concatenate([np.zeros(0, np.uint32), *map(coco.area, parts)])


def shares(masks: list[dict], regions: list[dict]) -> np.ndarray:
    """The share of each of n masks that lies in each of m regions: (n, m)."""
    from pycocotools import mask as coco

    return coco.iou(masks, regions, [1] * len(regions))  # for crowds, IoU is relative to the mask
