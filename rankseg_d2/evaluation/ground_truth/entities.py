"""Ground-truth entities of a data set: all categories as one, without crowds."""

import logging
import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...data.formats.entities import CATEGORY, entity_annotations
from ...data.prepare.processes import run_jobs
from .instances import InstanceGroundTruth, load_instances

logger = logging.getLogger(__name__)


def load_entities(dataset_name: str) -> InstanceGroundTruth:
    """The entities of the metadata's `json_file` or, without one, of the panoptic PNG files."""
    path = MetadataCatalog.get(dataset_name).get("json_file")
    if not path:
        content = _content_of_records(dataset_name)
    elif PathManager.isfile(os.fspath(path)):
        content = load_instances(dataset_name).content
    else:
        raise FileNotFoundError(
            f"The ground truth of {dataset_name!r}, {path}, does not exist. Make it: "
            "`rankseg-d2 dataset prepare coco-entity` for COCO."
        )
    annotations = [x for x in content["annotations"] if not x.get("iscrowd", 0)]
    if lacking := [x for x in annotations if not x.get("segmentation")]:
        raise ValueError(
            f"An annotation of image {lacking[0]['image_id']!r} of {dataset_name!r} has no "
            "segmentation, which AP needs. Add it, or remove the annotation."
        )
    annotations = [
        annotation | {"category_id": CATEGORY["id"], "id": number}
        for number, annotation in enumerate(annotations, 1)  # COCOeval takes 0 for no match
    ]
    content = content | {"annotations": annotations, "categories": [CATEGORY]}
    return InstanceGroundTruth(content, {0: CATEGORY["id"]}, 1)


def _content_of_records(dataset_name: str) -> dict:
    """What the panoptic PNG files of all records have, read in several processes."""
    records = DatasetCatalog.get(dataset_name)
    title = f"entities of {dataset_name}"
    images, annotations = [], []
    for record, (found, size) in run_jobs(_read, records, len(records), title, None):
        images.append({"id": record["image_id"], "height": size[0], "width": size[1]})
        annotations += found
    return {"images": images, "annotations": annotations}


def _read(record: dict) -> tuple[list[dict], tuple[int, int]]:
    for key in ("pan_seg_file_name", "segments_info"):
        if key not in record:
            raise ValueError(
                f"The record of {record.get('file_name', 'an image')!r} has no {key}, which "
                "entities come from. Register the data set by `register_entities`."
            )
    return entity_annotations(
        record["pan_seg_file_name"], record["segments_info"], record["image_id"]
    )
