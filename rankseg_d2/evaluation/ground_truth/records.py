"""Ground truth of a data set: found by image, and read when it is needed."""

from collections import Counter
from collections.abc import Collection, Iterable
from functools import cached_property

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...data.formats.label_images import positions_of_ids, read_label_map, read_segment_ids
from ...data.formats.painting import paint_segments


class Truth:
    """What the records of a data set say under some keys, by image.

    A sample that has the first key, the one to be preferred, answers for its image itself; the data
    set's records are loaded when the first sample lacks it, for mappers drop keys.
    """

    def __init__(self, dataset_name: str, keys: tuple[str, ...]):
        self.dataset_name = dataset_name
        self.keys = keys

    @cached_property
    def records(self) -> dict:
        records = DatasetCatalog.get(self.dataset_name)
        return {image_key(record): self.pick(record) for record in records}

    def find(self, sample: dict) -> dict:
        """Those of the keys that are known of the sample's image, at least one."""
        if self.keys[0] in sample:
            return self.pick(sample)
        key = image_key(sample)
        if key not in self.records:
            raise ValueError(
                f"the {kind_of(sample)} {key!r} is not in the data set {self.dataset_name!r}, "
                "which is to be evaluated; build evaluator and data loader of the same data set"
            )
        if not self.records[key]:
            raise ValueError(
                f"the data set {self.dataset_name!r} has no ground truth of {key!r}: its record "
                f"must have one of {', '.join(self.keys)}"
            )
        return self.records[key]

    def pick(self, record: dict) -> dict:
        return {key: record[key] for key in self.keys if key in record}


def image_key(sample: dict):
    """What tells an image from others: its file or, where it has none, its id; a video's id."""
    keys = ("video_id",) if kind_of(sample) == "video" else ("file_name", "image_id")
    key = next((sample[key] for key in keys if key in sample), None)
    if key is None:
        raise ValueError("a sample for an evaluator must have file_name or image_id, or video_id")
    return key


def kind_of(sample: dict) -> str:
    return "video" if "video_id" in sample else "image"


def check_complete(seen: Iterable, expected: Collection, dataset_name: str, kind="image") -> None:
    """ValueError unless each image (or other `kind`) of the data set was predicted exactly once."""
    times = Counter(seen)
    wrong = [key for key in expected if times[key] != 1]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the {len(expected)} {kind}s of {dataset_name!r} were not predicted "
            f"exactly once: {kind} {wrong[0]!r} has {times[wrong[0]]} predictions; run the model "
            f"once over each {kind} of the data set"
        )


class LabelMaps:
    """Label maps (H, W) of a data set's images.

    Where a record names none, its panoptic segments, crowds included, are painted instead.
    """

    def __init__(self, dataset_name: str):
        keys = ("sem_seg_file_name", "pan_seg_file_name", "segments_info")
        self.truth = Truth(dataset_name, keys)
        self.metadata = MetadataCatalog.get(dataset_name)

    def read(self, sample: dict) -> tuple[np.ndarray, str]:
        """The label map of the sample's image, void as `ignore_label`, and its file's name."""
        found = self.truth.find(sample)
        if "sem_seg_file_name" in found:
            path = found["sem_seg_file_name"]
            return read_label_map(path, self.metadata), path
        for key in ("pan_seg_file_name", "segments_info"):
            if key not in found:
                raise ValueError(
                    f"the record of {image_key(sample)!r} has no {key}, and no sem_seg_file_name "
                    "that would do without: a label map is read from the latter, or painted by "
                    "pan_seg_file_name and segments_info; add them"
                )
        path = found["pan_seg_file_name"]
        ids, segments = read_segment_ids(path), found["segments_info"]
        places = positions_of_ids(ids, [segment["id"] for segment in segments])
        categories = [segment["category_id"] for segment in segments]
        ignore = self.metadata.get("ignore_label", 255)
        return paint_segments(places, categories, ignore), path
