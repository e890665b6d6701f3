"""Masks as COCO's run-length codes."""

import numpy as np

AT_ONCE = 255  # pycocotools 2.0.11 raises OverflowError for the areas of more


def to_rle(segmentation: dict | list, height: int, width: int) -> dict:
    """One compressed RLE of polygons or of an RLE of either kind."""
    from pycocotools import mask as mask_util

    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, height, width)
    return segmentation


def rle_areas(rles: list[dict]) -> np.ndarray:
    """Pixels of each of N compressed RLEs: (N,)."""
    from pycocotools import mask as mask_util

    parts = [rles[i : i + AT_ONCE] for i in range(0, len(rles), AT_ONCE)]
    return np.concatenate([np.zeros(0, np.uint32), *map(mask_util.area, parts)])
