"""Ground-truth segments of a panoptic data set, from its json or from its records."""

import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...data.formats.coco_panoptic import read_segments
from ...data.formats.json_checks import check_ids, entries
from ..panoptic_quality import Segments


class PanopticGroundTruth:
    """The classes and images of a data set, without the content of the PNG files.

    Attributes:
        names, is_thing, dataset_ids: one for each class (C,).
        images: image id -> (path of the PNG, Segments).
        row_of: (is a thing, contiguous category id) -> class.
    """

    def __init__(self, dataset_name: str):
        metadata = MetadataCatalog.get(dataset_name)
        things = metadata.get("thing_dataset_id_to_contiguous_id")
        stuff = metadata.get("stuff_dataset_id_to_contiguous_id")
        if metadata.get("panoptic_json"):
            self._read_json(os.fspath(metadata.panoptic_json), metadata.panoptic_root)
        else:
            self._read_records(dataset_name, metadata, set((things or {}).values()))
            things = stuff = None  # records have contiguous ids
        own = {dataset_id: row for row, dataset_id in enumerate(self.dataset_ids)}
        self.row_of = {
            (is_thing, contiguous): own[dataset_id]
            for is_thing, ids in ((False, stuff), (True, things))
            for dataset_id, contiguous in (own if ids is None else ids).items()
            if dataset_id in own
        }

    def _read_json(self, path: str, root: str) -> None:
        content = read_segments(path, root)
        categories = entries(content, "categories", {"id", "isthing"}, path)
        check_ids((category["id"] for category in categories), "categories", path)
        self.dataset_ids = [category["id"] for category in categories]
        self.names = [category.get("name", str(category["id"])) for category in categories]
        self.is_thing = np.array([category["isthing"] == 1 for category in categories])
        row = {dataset_id: i for i, dataset_id in enumerate(self.dataset_ids)}
        self.images = {}
        for image in content["annotations"]:
            infos = image["segments_info"]
            if unknown := {info["category_id"] for info in infos} - row.keys():
                raise ValueError(
                    f"{path}: image {image['image_id']} has segments of category "
                    f"{min(unknown)}, which is not in its categories. Fix the json."
                )
            segments = Segments.of(infos, [row[info["category_id"]] for info in infos])
            png = os.path.join(root, image["file_name"])
            self.images[image["image_id"]] = png, segments

    def _read_records(self, dataset_name: str, metadata, thing_ids: set[int]) -> None:
        self.names = list(metadata.stuff_classes)
        self.dataset_ids = list(range(len(self.names)))
        self.is_thing = np.isin(self.dataset_ids, list(thing_ids))
        self.images = {}
        for record in DatasetCatalog.get(dataset_name):
            if "pan_seg_file_name" not in record or "segments_info" not in record:
                raise ValueError(
                    f"The data set {dataset_name!r} has neither panoptic_json in its metadata nor "
                    "pan_seg_file_name and segments_info in each record. Add one of them, or set "
                    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON False."
                )
            infos = record["segments_info"]
            segments = Segments.of(infos, [info["category_id"] for info in infos])
            self.images[record["image_id"]] = record["pan_seg_file_name"], segments
