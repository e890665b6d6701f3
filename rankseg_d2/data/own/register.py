"""Register own data sets, described by a yaml, with one name per split."""

import functools
import logging
import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...tasks import OWN_LABELS
from .description import OwnData, read_own_data
from .records import load_split
from .splits import Split

logger = logging.getLogger(__name__)

_registered: dict[str, OwnData] = {}


def register_own_data(path: str | os.PathLike) -> list[str]:
    """Register each split of a yaml's data set; returns their names, <name>_<split>.

    A second call with the same file is no error; a changed file replaces the former registration.
    """
    data = read_own_data(path)
    names = [f"{data.name}_{split.name}" for split in data.splits]
    old = _registered.get(data.name)
    if old == data and all(name in DatasetCatalog for name in names):
        return names
    if old is not None and old.path != data.path:
        raise ValueError(f"{data.path}: {old.path} already has the name {data.name!r}; change the "
                         "`name` of one of them")
    if old is not None:
        _forget(old)
    taken = [name for name in names if name in DatasetCatalog]
    if taken:
        raise ValueError(f"{data.path}: a data set {taken[0]!r} is already registered, by code and "
                         f"not by a yaml; change `name`, now {data.name!r}")
    for name, split in zip(names, data.splits, strict=True):
        DatasetCatalog.register(name, functools.partial(load_split, data, split))
        MetadataCatalog.get(name).set(**metadata_of(data, split))
    _registered[data.name] = data
    return names


def _forget(data: OwnData) -> None:
    for split in data.splits:
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.pop(f"{data.name}_{split.name}", None)


def metadata_of(data: OwnData, split: Split) -> dict:
    """The fields of a split in detectron2's MetadataCatalog."""
    classes = list(enumerate(data.classes))
    labels = OWN_LABELS[split.kind]
    things = [(i, entry) for i, entry in classes if entry.isthing or labels.only_things]
    facts = {
        "evaluator_type": labels.evaluator_type,
        "image_root": str(split.images),
        "ignore_label": data.ignore_label,
    }
    if not labels.only_things:
        facts |= _named("stuff", classes, data)
    if things:
        facts |= _named("thing", things, data)
    if split.labels is None:
        facts["has_labels"] = False
    elif labels.are_images:
        facts |= {"sem_seg_root": str(split.labels), "grey_labels": True}
    elif split.chosen is None and split.shapes in ("", "json") and split.kind != "drawn":
        # a part has no json of its own
        facts["json_file" if labels.only_things else "panoptic_json"] = str(split.labels)
    if split.kind == "panoptic":
        facts |= {"panoptic_root": str(split.segments), "label_divisor": 1000}
    optional = {
        "flip_pairs": data.flip_pairs or None,
        "resize_labels": data.resize_labels or None,
        "label_table": data.values.table(len(classes), data.ignore_label),
        "label_colors": data.values.color_table(data.ignore_label),
    }
    return facts | {key: value for key, value in optional.items() if value is not None}


def _named(kind: str, classes: list, data: OwnData) -> dict:
    """<kind>_classes, the map from their ids in the files, and their colours if they have any."""
    chosen = {i for i, _ in classes}
    raw_ids = data.raw_ids.items()
    facts = {
        f"{kind}_classes": [entry.name for _, entry in classes],
        f"{kind}_dataset_id_to_contiguous_id": {raw: i for raw, i in raw_ids if i in chosen},
    }
    if classes[0][1].color is not None:
        facts[f"{kind}_colors"] = [list(entry.color) for _, entry in classes]
    return facts
