"""The records of registered data sets, images or videos, for dataloaders."""

import logging
from collections.abc import Iterable

from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import print_instances_class_histogram
from detectron2.data.detection_utils import check_metadata_consistency

from ..formats.video_frames import flat_record

logger = logging.getLogger(__name__)


def require_labels(names: Iterable[str]) -> None:
    """Raise ValueError if one of the data sets to train on has no labels."""
    for name in names:
        if not MetadataCatalog.get(name).get("has_labels", True):
            raise ValueError(f"DATASETS.TRAIN: the data set {name} has no labels, so it is only "
                             "for prediction; name a labelled one")


def load_records(names: str | Iterable[str], filter_empty: bool = False) -> list[dict]:
    """The records of data sets: detectron2's `get_detection_dataset_dicts`, but also for videos.

    filter_empty: leave out images and videos without annotations, or with crowds only.
    """
    names = [names] if isinstance(names, str) else list(names)
    records = get_detection_dataset_dicts(names, filter_empty=False, check_consistency=False)
    if not isinstance(records, list) or "annotations" not in records[0]:
        return records
    flat = [flat_record(record) for record in records]
    classes = [MetadataCatalog.get(name).get("thing_classes") for name in names]
    if None not in classes:
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(flat, classes[0])
    if not filter_empty:
        return records
    kept = [
        record
        for record, one_list in zip(records, flat, strict=True)
        if any(not annotation.get("iscrowd", 0) for annotation in one_list["annotations"])
    ]
    logger.info("%d of %d records have usable annotations", len(kept), len(records))
    if not kept:
        raise ValueError(
            f"no record of {', '.join(names)} has usable annotations; check them, or set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS to False to keep all records"
        )
    return kept
