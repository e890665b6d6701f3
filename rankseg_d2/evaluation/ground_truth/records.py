"""Ground truth of images and videos, by the keys of their records."""

from functools import cached_property

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...data.formats import rle
from ...data.formats.label_images import positions_of_ids, read_label_map, read_segment_ids
from ...data.formats.mask_checks import check_masks
from ...data.formats.painting import paint, paint_segments
from ..checks import check_known


class GroundTruth:
    """The values of some keys in the records of a data set, by image or video.

    A sample that has the first key is its own record. For other samples the records of the data
    set are loaded, because mappers drop keys.
    """

    def __init__(self, dataset_name: str, keys: tuple[str, ...]):
        self.dataset_name = dataset_name
        self.keys = keys

    @cached_property
    def records(self) -> dict:
        records = DatasetCatalog.get(self.dataset_name)
        return {image_key(record): self._pick(record) for record in records}

    def find(self, sample: dict) -> dict:
        """The keys, at least one, that the record of the sample's image or video has."""
        if self.keys[0] in sample:
            return self._pick(sample)
        key = image_key(sample)
        check_known(key, self.records, self.dataset_name, _kind(sample))
        if not self.records[key]:
            raise ValueError(
                f"The data set {self.dataset_name!r} has no ground truth for {key!r}. Its record "
                f"must have one of {', '.join(self.keys)}."
            )
        return self.records[key]

    def _pick(self, record: dict) -> dict:
        return {key: record[key] for key in self.keys if key in record}


def image_key(sample: dict):
    """What identifies an image: its file or, if it has none, its id; of a video, the video's id."""
    keys = ("video_id",) if _kind(sample) == "video" else ("file_name", "image_id")
    key = next((sample[key] for key in keys if key in sample), None)
    if key is None:
        raise ValueError("A sample for an evaluator must have file_name, image_id or video_id.")
    return key


def _kind(sample: dict) -> str:
    return "video" if "video_id" in sample else "image"


class LabelMaps:
    """Label maps (H, W) of a data set's images.

    If a record has no label image, its panoptic segments, crowds included, are painted.
    """

    def __init__(self, dataset_name: str):
        keys = ("sem_seg_file_name", "pan_seg_file_name", "segments_info")
        self.ground_truth = GroundTruth(dataset_name, keys)
        self.metadata = MetadataCatalog.get(dataset_name)
        self.ignore = self.metadata.get("ignore_label", 255)

    def read(self, sample: dict) -> tuple[np.ndarray, str]:
        """The label map of the sample's image, with `ignore`, and the path of its file."""
        found = self.ground_truth.find(sample)
        if "sem_seg_file_name" in found:
            path = found["sem_seg_file_name"]
            size = (sample["height"], sample["width"]) if "height" in sample else None
            return read_label_map(path, self.metadata, size), path
        for key in ("pan_seg_file_name", "segments_info"):
            if key not in found:
                raise ValueError(
                    f"The record of {image_key(sample)!r} has no {key}. Without sem_seg_file_name "
                    "it needs both pan_seg_file_name and segments_info. Add one or the other."
                )
        path = found["pan_seg_file_name"]
        ids, segments = read_segment_ids(path), found["segments_info"]
        positions = positions_of_ids(ids, [segment["id"] for segment in segments])
        categories = [segment["category_id"] for segment in segments]
        return paint_segments(positions, categories, self.ignore), path


class ThingMaps:
    """Label maps (H, W) painted from the annotations of an image, small things over large ones."""

    ignore = -1  # pixels without a thing

    def __init__(self, dataset_name: str):
        self.ground_truth = GroundTruth(dataset_name, ("annotations",))

    def read(self, sample: dict) -> tuple[np.ndarray, str]:
        """The label map of the sample's image, with `ignore`, and the path of the image."""
        size = sample["height"], sample["width"]
        things = self.ground_truth.find(sample)["annotations"]
        check_masks(things, size, sample["file_name"])
        masks = [rle.decode(rle.to_rle(thing["segmentation"], *size)) for thing in things]
        order = np.argsort([-mask.sum() for mask in masks])
        masks = np.array(masks, bool).reshape(-1, *size)[order]
        classes = np.array([thing["category_id"] for thing in things], np.int64)[order]
        return paint(masks, classes, np.full(size, self.ignore)), sample["file_name"]

