"""Read the yaml of an own data set (docs/own_data.md)."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ..._yaml import read_yaml
from ...errors import unknown_name
from ...tasks import OWN_LABELS
from .classes import Class, read_classes, read_json_classes
from .keys import Keys
from .splits import Split, read_splits
from .ultralytics import expand_yolo, is_data_yaml
from .values import (
    IGNORED,
    Values,
    ids_by_name,
    ignore_label,
    image_values,
    label_values,
    names_in_values,
)

_EVERYWHERE = {"name", "images", "videos", "labels", "classes", "splits", "flip_pairs", "task"}
_FILE_KEYS = {"image_suffix", "label_suffix"}  # where each image has its label file
_IMAGE_KEYS = {"values", "label_offset", "ignore", "background", "resize_labels"}
# The keys of some labels only, by the format of polygons, "" for label images; others of a json.
_KEYS_OF = {
    "": _FILE_KEYS | _IMAGE_KEYS,
    "json": {"background"},
    "labelme": _FILE_KEYS | {"values", "background"},
    "yolo": _FILE_KEYS | {"background", "yolo"},
}
_TASKS = ("semantic", "instances")


class OwnData(NamedTuple):
    """The content of the yaml of a data set."""

    path: Path
    name: str
    classes: tuple[Class, ...]
    splits: tuple[Split, ...]
    values: Values
    image_suffix: str
    label_suffix: str
    flip_pairs: tuple[tuple[int, int], ...]
    resize_labels: bool

    @property
    def kind(self) -> str:
        """The kind of labels, the same in all splits; a key of OWN_LABELS."""
        return self.splits[0].kind

    @property
    def ignore_label(self) -> int:
        """The label of ignored pixels after loading: 255, or 65535 if 255 is a class."""
        return ignore_label(len(self.classes))

    @property
    def category_ids(self) -> dict[int, int]:
        """Id in the json, or number in YOLO's files, -> class id."""
        return {entry.raw_id: i for i, entry in enumerate(self.classes)
                if entry.raw_id is not None}

    @property
    def raw_ids(self) -> dict[int, int]:
        """`category_ids`, or else value in label images, -> class id; all classes have an id."""
        if self.values.by_value:
            return {value: i for value, i in self.values.by_value.items() if i != IGNORED}
        ids = self.category_ids
        free = max(ids, default=-1) + 1 if 0 in ids else 0
        others = [i for i, entry in enumerate(self.classes) if entry.raw_id is None]
        return ids | {free + n: i for n, i in enumerate(others)}


def read_own_data(path: str | os.PathLike) -> OwnData:
    """The checked content of a data set's yaml; reads no data but a json, for its classes."""
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"the data set file {path} does not exist; write a yaml with the "
                                "paths of images and labels, and the classes (docs/own_data.md), "
                                "or let `rankseg-d2 dataset init FOLDER` write it")
    return parse_own_data(read_yaml(str(path)), path)


def parse_own_data(content: dict, path: Path) -> OwnData:
    """The checked description; paths in `content` are relative to the yaml `path`."""
    if is_data_yaml(content):
        raise ValueError(f"{path} is a data.yaml of YOLO; write another yaml beside it, with "
                         f"`name: ...` and `yolo: {path.name}` (docs/own_data.md)")
    keys = Keys(content, _EVERYWHERE.union(*_KEYS_OF.values()), path, str(path))
    name = keys.take("name", str, "a word, such as street")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{path}: name must be letters, digits, '_', '-' or '.', got {name!r}")
    keys = expand_yolo(keys)
    splits = _for_task(keys, read_splits(keys))
    _refuse_unused(keys, splits[0])
    classes, values = _classes(keys, splits)
    suffixes = (keys.take(key, str, "the end of file names, such as _mask.png", "")
                for key in ("image_suffix", "label_suffix"))
    resize = keys.flag("resize_labels")
    return OwnData(path, name, classes, splits, values, *suffixes, _flip_pairs(keys, classes),
                   resize)


def _for_task(keys: Keys, splits: tuple[Split, ...]) -> tuple[Split, ...]:
    """The splits; with the task semantic, polygons are drawn as label maps."""
    kind = splits[0].kind
    natural = "instances" if OWN_LABELS[kind].only_things else "semantic"
    task = keys.take("task", str, " or ".join(_TASKS), natural)
    if task not in _TASKS:
        raise unknown_name(f"{keys.where}: task", task, _TASKS)
    if task == natural or (task == "semantic" and kind == "panoptic"):
        return splits
    if kind != "instances":
        raise ValueError(f"{keys.where}: task: {task} needs polygons (a COCO instance json, "
                         f"labelme or yolo), but labels are {kind}; remove the key task")
    return tuple(split._replace(kind="drawn") for split in splits)


def _refuse_unused(keys: Keys, split: Split) -> None:
    """Raise ValueError for a key that such labels do not use."""
    labels = OWN_LABELS[split.kind]
    known = _KEYS_OF[split.shapes] if labels.are_images or split.shapes else set()
    known = known if split.kind in ("drawn", "semantic", "video_semantic") else (
        known - {"background"})
    unused = sorted(keys.values.keys() - _EVERYWHERE - known)
    if not unused:
        return
    key, what = unused[0], "a json" if split.shapes in ("", "json") else split.shapes
    if key == "background" and split.shapes:
        raise ValueError(f"{keys.where}: background is the class of pixels in no polygon, which "
                         "only label maps have; set task: semantic, or remove the key")
    raise ValueError(f"{keys.where}: {key} is for folders of label images, but labels is {what}, "
                     "which has file names and classes of its own; remove the key")


def _classes(keys: Keys, splits: tuple[Split, ...]) -> tuple[tuple[Class, ...], Values]:
    """The classes, and the meaning of what labels hold."""
    kind, shapes = splits[0].kind, splits[0].shapes
    if OWN_LABELS[kind].are_images:
        names = names_in_values(keys) if "classes" not in keys.values and "values" in (
            keys.values) else None
        classes = read_classes(keys, names)
        return classes, image_values(keys, classes)
    if shapes in ("labelme", "yolo"):
        classes = read_classes(keys)
        classes = tuple(entry._replace(raw_id=i) for i, entry in enumerate(classes))
    else:
        classes = read_json_classes(keys, [split.labels for split in splits if split.labels])
    background = None
    if kind == "drawn":
        classes, background = _with_background(keys, classes)
    values = label_values(keys, classes) if shapes == "labelme" else Values()
    return classes, values._replace(background=background)


def _with_background(
    keys: Keys, classes: tuple[Class, ...]
) -> tuple[tuple[Class, ...], int]:
    """The classes, and the class id of pixels in no polygon; a new name becomes class 0."""
    name = keys.take("background", str, "`ignore`, or a name: the class of pixels in no polygon")
    if name == "ignore":
        return classes, IGNORED
    known = ids_by_name(classes)
    if name in known:
        return classes, known[name]
    color = None if classes[0].color is None else (0, 0, 0)
    return (Class(name, color), *classes), 0


def _flip_pairs(keys: Keys, classes: tuple[Class, ...]) -> tuple[tuple[int, int], ...]:
    expected = "a list of [left class, right class]"
    pairs = keys.take("flip_pairs", list, expected, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{keys.where}: flip_pairs must be {expected}, got {pairs}")
    where, known, used = f"{keys.where}: flip_pairs", ids_by_name(classes), set()
    for name in (name for pair in pairs for name in pair):
        if not isinstance(name, str) or name not in known:
            raise unknown_name(where, str(name), known)
        if name in used:
            raise ValueError(f"{where} has {name!r} twice; a class can be exchanged with one other "
                             "class only")
        used.add(name)
    return tuple((known[a], known[b]) for a, b in pairs)
