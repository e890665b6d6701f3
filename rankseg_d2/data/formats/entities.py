"""Entities: the segments of a panoptic image, things and stuff alike, without their categories."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import rle
from .coco_panoptic import regions
from .label_images import positions_of_ids, read_segment_ids

CATEGORY = {"id": 1, "name": "entity", "isthing": 1, "supercategory": "entity"}


def entity_annotations(
    path: str, segments: Sequence[dict], image_id: Any, box_area: bool = False
) -> tuple[list[dict], tuple[int, int]]:
    """COCO annotations of the segments of a panoptic PNG, and its size (height, width).

    Crowds and segments without a pixel are left out. With `box_area`, width and height are those
    between the outer pixels, one less than usual, and the area is their product, as published.
    """
    ids = read_segment_ids(path)
    wanted = [segment["id"] for segment in segments if not segment.get("iscrowd", 0)]
    numbers = positions_of_ids(ids, wanted)  # (H, W), from 1; 0 is no entity
    measured = regions(numbers)
    present = np.array(sorted(measured), numbers.dtype)
    columns = np.ascontiguousarray(numbers.T) == present[:, None, None]  # (N, W, H)
    annotations = []
    for number, mask in zip(present.tolist(), rle.encode_columns(columns), strict=True):
        facts = measured[number]
        if box_area:
            x, y, width, height = facts["bbox"]
            facts = {"bbox": [x, y, width - 1, height - 1], "area": (width - 1) * (height - 1)}
        own = {"image_id": image_id, "category_id": CATEGORY["id"], "iscrowd": 0}
        annotations.append(own | {"segmentation": rle.as_text(mask)} | facts)
    return annotations, ids.shape
