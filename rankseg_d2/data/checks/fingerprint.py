"""The fingerprint of an own data set: the few numbers by which a training is chosen."""

import os
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..formats.image_files import image_size
from ..own.description import OwnData, read_own_data
from ..own.register import register_own_data
from .scan import class_names, scan

_MOST_COUNTED = 2000  # images that are read, spread evenly; more would take minutes
_TASKS = {"semantic": "semantic", "drawn": "semantic", "instances": "instance"}
_TASKS |= {"panoptic": "panoptic"}
_FOR_VIDEOS = {
    "video_semantic": "vspw/semantic/r50_rankseg",
    "video_instances": "ytvis_2019/instance/r50_rankseg",
}


class Fingerprint(NamedTuple):
    """What a data set is; counts of one image are the largest."""

    name: str
    task: str  # semantic, panoptic or instance
    images: int  # of the split train
    val_images: int  # 0 without a split val that has labels
    classes: int
    height: int  # pixels, the median
    width: int
    categories: int  # in one image
    objects: int  # in one image; in label images the categories
    counted: int  # images of the split train that were read
    faults: int  # in these


def fingerprint(path: str | os.PathLike, workers: int | None = None) -> Fingerprint:
    """The fingerprint of the data set that a yaml describes (docs/own_data.md)."""
    data = read_own_data(path)
    if data.kind in _FOR_VIDEOS:
        raise ValueError(
            f"{data.path} describes videos, for which no config is chosen; give one, such as "
            f"`rankseg-d2 train --data {path} {_FOR_VIDEOS[data.kind]}`"
        )
    names = dict(zip((split.name for split in data.splits), register_own_data(path), strict=True))
    if "train" not in names:
        raise ValueError(
            f"{data.path}: splits must have a split train, to train on, but has only "
            f"{', '.join(names)}; rename one of them"
        )
    records = DatasetCatalog.get(names["train"])
    step = -(-len(records) // _MOST_COUNTED)
    some = records[::step]
    metadata = MetadataCatalog.get(names["train"])
    tally = scan(some, metadata, f"reading {names['train']}", workers)
    categories = int(np.flatnonzero(tally.sizes).max(initial=0))
    if not categories:
        raise ValueError(
            f"{data.path}: no image of the split train has a category, so there is nothing to "
            f"learn; `rankseg-d2 dataset check {path}` says what the labels hold"
        )
    height, width = _median_size(some)
    return Fingerprint(
        name=data.name,
        task=_TASKS[data.kind],
        images=len(records),
        val_images=_count_labelled(data, names),
        classes=len(class_names(metadata)),
        height=height,
        width=width,
        categories=categories,
        objects=max([categories, *map(_count_objects, some)]),
        counted=len(some),
        faults=len(tally.faults),
    )


def _count_labelled(data: OwnData, names: dict[str, str]) -> int:
    """The images of the split val, if it has labels."""
    if not any(split.name == "val" and split.labels for split in data.splits):
        return 0
    return len(DatasetCatalog.get(names["val"]))


def _median_size(records: list[dict]) -> tuple[int, int]:
    sizes = [(record["height"], record["width"]) if "height" in record
             else image_size(record["file_name"], "image") for record in records]  # fmt: skip
    height, width = np.median(sizes, axis=0).astype(int).tolist()
    return height, width


def _count_objects(record: dict) -> int:
    objects = record.get("annotations") or record.get("segments_info") or []
    return sum(not entry.get("iscrowd") for entry in objects)
