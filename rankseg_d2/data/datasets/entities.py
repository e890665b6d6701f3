"""Entity segmentation: any panoptic data set, with one class for all of its segments.

Crowds stay crowds: they are no objects of the training, and no ground truth of the evaluation.
"""

import functools
from collections.abc import Iterable
from typing import Any

from detectron2.data import DatasetCatalog

from ..formats.entities import CATEGORY
from . import common

_CLASS = CATEGORY | {"train_id": 0, "color": [220, 120, 40]}


def register_entities(name: str, panoptic: str, **metadata: Any) -> None:
    """Register the entities of a registered panoptic data set, which is loaded with it.

    Args:
        metadata: more of it. `json_file`: a COCO json of the entities, which an evaluation reads
            in place of the panoptic PNG files.
    """
    common.register_dataset(
        name, functools.partial(_load, panoptic), **(entity_metadata() | metadata)
    )


def entity_metadata() -> dict[str, Any]:
    """The class list of one class, "entity"."""
    facts = {"evaluator_type": "entity_seg", "ignore_label": 255}
    return common.panoptic_metadata([_CLASS]) | facts


def entity_records(records: Iterable[dict]) -> list[dict]:
    """Records of a panoptic data set with the class 0 for each segment, and no label map."""
    found = []
    for record in records:
        if "pan_seg_file_name" not in record or "segments_info" not in record:
            raise ValueError(
                f"the record of {record.get('file_name', 'an image')} has no pan_seg_file_name or "
                "no segments_info, so it has no entities; take a panoptic data set"
            )
        segments = [x | {"category_id": 0, "isthing": True} for x in record["segments_info"]]
        own = {key: value for key, value in record.items() if key != "sem_seg_file_name"}
        found.append(own | {"segments_info": segments})
    return found


def _load(panoptic: str) -> list[dict]:
    return entity_records(DatasetCatalog.get(panoptic))
