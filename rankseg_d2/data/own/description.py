"""Read the yaml of an own data set (docs/own_data.md)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..._yaml import read_yaml
from ...errors import unknown_name
from ...tasks import OWN_LABELS
from .classes import Class, read_classes, read_json_classes
from .keys import Keys

_FILE_KEYS = {"image_suffix", "label_suffix"}  # for folders only: a json names its files
_VALUE_KEYS = {"label_offset", "ignore", "background"}  # for label images only
_KEYS = _FILE_KEYS | _VALUE_KEYS | {
    "name", "images", "videos", "labels", "classes", "splits", "flip_pairs"
}  # fmt: skip
_SPLITS = (
    "{train: train, val: val} for sub-folders, {train: train.txt, val: val.txt} for lists of "
    "names, {train: 0.9, val: 0.1} for parts, or {train: {images: ..., labels: ...}, ...}"
)
_LABELS = (
    "a folder of label images, a COCO instance json, or {json: a COCO panoptic json, folder: its "
    "PNG files}"
)
_VIDEO_LABELS = "a folder with a folder of label images for each video, or a YouTube-VIS json"


class Split(NamedTuple):
    """Where a split's images and labels are, and which of them belong to it."""

    name: str
    images: Path
    kind: str  # semantic, instances, panoptic, video_semantic or video_instances
    labels: Path  # the folder of label images, or the json
    segments: Path | None = None  # the PNG files of a panoptic json
    chosen: Path | tuple[float, float] | None = None  # a list of names, a range, or all


class Values(NamedTuple):
    """The meaning of the values in label images: the class id is value - offset."""

    offset: int = 0
    ignore: tuple[int, ...] = ()
    background: int | None = None  # the class id of value 0, if the offset leaves 0 free


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

    @property
    def kind(self) -> str:
        """The kind of labels, the same in all splits; a key of OWN_LABELS."""
        return self.splits[0].kind

    @property
    def ignore_label(self) -> int:
        """The label of ignored pixels after loading: 255, or 65535 if 255 is a class."""
        return _ignore_label(len(self.classes))

    def label_table(self) -> np.ndarray | None:
        """Value -> class id, `ignore_label`, or -1 for a value without meaning.

        None if the values are already class ids and `ignore_label`.
        """
        first, ignore, background = self.values
        if not OWN_LABELS[self.kind].are_images or (first == 0 and ignore == (self.ignore_label,)):
            return None
        end = first + len(self.classes)
        table = np.full(max(end, *(value + 1 for value in ignore)), -1, np.int32)
        table[first:end] = np.arange(len(self.classes))
        table[list(ignore)] = self.ignore_label
        if background is not None:
            table[0] = background
        return table


def read_own_data(path: str | os.PathLike) -> OwnData:
    """The checked content of a data set's yaml; reads no data but a json, for its classes."""
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"the data set file {path} does not exist; write a yaml with the "
                                "paths of images and labels, and the classes (docs/own_data.md)")
    keys = Keys(read_yaml(str(path)), _KEYS, path, str(path))
    name = keys.take("name", str, "a word, such as street")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{path}: name must be letters, digits, '_', '-' or '.', got {name!r}")
    splits = _splits(keys)
    if OWN_LABELS[splits[0].kind].are_images:
        classes = read_classes(keys)
        values = _values(keys, classes)
    else:
        unused = sorted((_FILE_KEYS | _VALUE_KEYS) & keys.values.keys())
        if unused:
            raise ValueError(f"{path}: {unused[0]} is for folders of label images, but labels is a "
                             "json, which has file names and class ids; remove the key")
        classes, values = read_json_classes(keys, [split.labels for split in splits]), Values()
    suffixes = (keys.take(key, str, "the end of file names, such as _mask.png", "")
                for key in ("image_suffix", "label_suffix"))
    return OwnData(path, name, classes, splits, values, *suffixes, _flip_pairs(keys, classes))


def _splits(keys: Keys) -> tuple[Split, ...]:
    entries = keys.take("splits", dict, _SPLITS)
    are_parts = [isinstance(value, int | float) for value in entries.values()]
    if not entries or any(are_parts) != all(are_parts):
        raise ValueError(f"{keys.where}: splits must be of one form, {_SPLITS}; got {entries}")
    for name in entries:
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise ValueError(f"{keys.where}: a split's name must be a word, got {name!r}")
    make = _by_parts if any(are_parts) else _by_names
    splits = tuple(make(keys, {str(name): value for name, value in entries.items()}))
    if len({split.kind for split in splits}) > 1:
        kinds = ", ".join(f"{split.name}: {split.kind}" for split in splits)
        raise ValueError(f"{keys.where}: labels must be of one kind in all splits, got {kinds}")
    return splits


def _by_parts(keys: Keys, parts: dict) -> Iterator[Split]:
    if not all(0 < value <= 1 for value in parts.values()) or sum(parts.values()) > 1 + 1e-9:
        raise ValueError(f"{keys.where}: parts in splits must be above 0, and their sum at most 1, "
                         f"got {parts}")
    start = 0.0
    for name, value in parts.items():
        end = start + value
        end = 1.0 if end > 1 - 1e-9 else end  # rounding must not leave out the last positions
        yield _split(keys, keys, name)._replace(chosen=(start, end))
        start = end


def _by_names(keys: Keys, entries: dict) -> Iterator[Split]:
    for name, value in entries.items():
        where = f"{keys.where}: splits: {name}"
        if isinstance(value, dict):
            own = Keys(value, {"images", "videos", "labels"}, keys.path, where)
            images = own if value.keys() & {"images", "videos"} else keys
            labels = own if "labels" in value else keys
            yield _split(images, labels, name)
            continue
        if not isinstance(value, str):
            raise ValueError(f"{where} must be as in {_SPLITS}; got {value!r}")
        split = _split(keys, keys, name)
        if value.endswith(".txt"):
            yield split._replace(chosen=keys.beside(value))
        elif OWN_LABELS[split.kind].are_images and "*" not in f"{split.images}{split.labels}":
            yield split._replace(images=split.images / value, labels=split.labels / value)
        else:
            raise ValueError(f"{where} is the sub-folder {value!r}, but a json and a path with * "
                             "have no sub-folders; write {images: ..., labels: ...} (videos: ... "
                             "for videos) for each split, or a .txt file, a list of names")


def _split(images: Keys, labels: Keys, name: str) -> Split:
    value = labels.take("labels", (str, dict), _LABELS)
    if "videos" in images.values:
        return _video_split(images, labels, name, value)
    folder = images.file("images", "a folder")
    if isinstance(value, dict):
        parts = Keys(value, {"json", "folder"}, labels.path, f"{labels.where}: labels")
        json, pngs = parts.file("json", "a COCO panoptic json"), parts.file("folder", "a folder")
        return Split(name, folder, "panoptic", json, pngs)
    kind = "instances" if value.endswith(".json") else "semantic"
    return Split(name, folder, kind, labels.beside(value))


def _video_split(images: Keys, labels: Keys, name: str, value: str | dict) -> Split:
    if "images" in images.values:
        raise ValueError(f"{images.where}: both images and videos are set; keep one of them")
    if isinstance(value, dict):
        raise ValueError(f"{labels.where}: labels of videos must be {_VIDEO_LABELS}, got {value}")
    kind = "video_instances" if value.endswith(".json") else "video_semantic"
    return Split(name, images.file("videos", "a folder"), kind, labels.beside(value))


def _values(keys: Keys, classes: tuple[Class, ...]) -> Values:
    offset = keys.take("label_offset", int, "a whole number, value - class id", 0)
    if offset < 0:
        raise ValueError(f"{keys.where}: label_offset must be 0 or more, got {offset}")
    end = offset + len(classes)
    value = keys.take("ignore", (int, list), "a value or a list of values", _ignore_label(end))
    ignore = set(value if isinstance(value, list) else [value])
    for value in ignore:
        if type(value) is not int or value < 0:
            raise ValueError(f"{keys.where}: ignore must be whole numbers from 0, got {value!r}")
        if offset <= value < end:
            raise ValueError(f"{keys.where}: ignore has {value}, which is the class "
                             f"{classes[value - offset].name!r}; remove it, or fix label_offset")
    background = _background(keys, classes, offset)
    if background == "ignore":
        ignore, background = ignore | {0}, None
    if background is not None and 0 in ignore:
        raise ValueError(f"{keys.where}: 0 cannot be in ignore and be the background "
                         f"{classes[background].name!r}; keep one of them")
    return Values(offset, tuple(sorted(ignore)), background)


def _background(keys: Keys, classes: tuple[Class, ...], offset: int) -> int | str | None:
    """"ignore", or the class id of the value 0; None if the yaml has no `background`."""
    background = keys.take("background", str, "`ignore` or the name of a class", None)
    if background is None:
        return None
    if offset == 0:
        raise ValueError(f"{keys.where}: background is the meaning of the value 0, but with "
                         f"label_offset 0 that is the class {classes[0].name!r}; set "
                         "label_offset: 1, or remove background")
    if background == "ignore":
        return background
    return _class_id(background, classes, f"{keys.where}: background, if not `ignore`,")


def _flip_pairs(keys: Keys, classes: tuple[Class, ...]) -> tuple[tuple[int, int], ...]:
    expected = "a list of [left class, right class]"
    pairs = keys.take("flip_pairs", list, expected, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{keys.where}: flip_pairs must be {expected}, got {pairs}")
    where = f"{keys.where}: flip_pairs"
    return tuple((_class_id(a, classes, where), _class_id(b, classes, where)) for a, b in pairs)


def _class_id(name, classes: tuple[Class, ...], where: str) -> int:
    names = [entry.name for entry in classes]
    if name not in names:
        raise unknown_name(where, str(name), names)
    return names.index(name)


def _ignore_label(end: int) -> int:
    """The usual label of ignored pixels, if values below `end` are classes."""
    return 255 if end <= 255 else 65535
