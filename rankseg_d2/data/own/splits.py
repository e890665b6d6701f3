"""The splits of an own data set: the keys splits, images, videos and labels of its yaml."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...tasks import OWN_LABELS
from .keys import Keys

_SPLITS = (
    "{train: train, val: val} for sub-folders, {train: train.txt, val: val.txt} for lists of "
    "names, {train: 0.9, val: 0.1} for parts, or {train: {images: ..., labels: ...}, ...}"
)
_LABELS = (
    "a folder of label images, a COCO instance json, {json: a COCO panoptic json, folder: its PNG "
    "files}, {labelme: a folder} or {yolo: a folder}; for a split without labels: none"
)
_VIDEO_LABELS = "a folder with a folder of label images for each video, or a YouTube-VIS json"
_NO_LABELS = "none"


class Split(NamedTuple):
    """Where a split's images and labels are, and which of them belong to it."""

    name: str
    images: Path
    kind: str  # a key of OWN_LABELS
    labels: Path | None  # a folder, or the json; None: no labels
    segments: Path | None = None  # the PNG files of a panoptic json
    chosen: Path | tuple[float, float] | None = None  # a list of names, a range, or all
    shapes: str = ""  # the format of polygons: json, labelme or yolo


def read_splits(keys: Keys) -> tuple[Split, ...]:
    """The splits; those without labels are of the kind of the others."""
    entries = keys.take("splits", dict, _SPLITS)
    are_parts = [isinstance(value, int | float) for value in entries.values()]
    if not entries or any(are_parts) != all(are_parts):
        raise ValueError(f"{keys.where}: splits must be of one form, {_SPLITS}; got {entries}")
    for name in entries:
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise ValueError(f"{keys.where}: a split's name must be a word, got {name!r}")
    make = _by_parts if any(are_parts) else _by_names
    splits = tuple(make(keys, {str(name): value for name, value in entries.items()}))
    labelled = [split for split in splits if split.labels is not None]
    if not labelled:
        raise ValueError(f"{keys.where}: no split has labels; labels must be {_LABELS}")
    if len({(split.kind, split.shapes) for split in labelled}) > 1:
        kinds = ", ".join(f"{split.name}: {split.shapes or split.kind}" for split in labelled)
        raise ValueError(f"{keys.where}: labels must be of one kind in all splits, got {kinds}")
    kind = labelled[0].kind
    for split in splits:
        if split.labels is None and split.kind.startswith("video") != kind.startswith("video"):
            raise ValueError(f"{keys.where}: splits: {split.name} must have videos or images as "
                             "the other splits have")
    return tuple(split if split.labels else split._replace(kind=kind, shapes=labelled[0].shapes)
                 for split in splits)


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
        elif split.labels and _has_sub_folders(split):
            yield split._replace(images=split.images / value, labels=split.labels / value)
        else:
            raise ValueError(f"{where} is the sub-folder {value!r}, but a json and a path with * "
                             "have no sub-folders; write {images: ..., labels: ...} (videos: ... "
                             "for videos) for each split, or a .txt file, a list of names")


def _has_sub_folders(split: Split) -> bool:
    are_files = OWN_LABELS[split.kind].are_images or split.shapes in ("labelme", "yolo")
    return are_files and "*" not in f"{split.images}{split.labels}"


def _split(images: Keys, labels: Keys, name: str) -> Split:
    is_video = "videos" in images.values
    if is_video and "images" in images.values:
        raise ValueError(f"{images.where}: both images and videos are set; keep one of them")
    folder = images.file("videos" if is_video else "images", "a folder")
    if "labels" in labels.values and labels.values["labels"] in (None, _NO_LABELS):
        return Split(name, folder, "video" if is_video else "image", None)
    value = labels.take("labels", (str, dict), _VIDEO_LABELS if is_video else _LABELS)
    if is_video:
        return _video_split(name, folder, labels, value)
    if isinstance(value, str):
        if value.endswith(".json"):
            return Split(name, folder, "instances", labels.beside(value), shapes="json")
        return Split(name, folder, "semantic", labels.beside(value))
    parts = Keys(value, {"json", "folder", "labelme", "yolo"}, labels.path,
                 f"{labels.where}: labels")
    format_ = next((key for key in ("labelme", "yolo") if key in value), None)
    if format_ is None:
        json, pngs = parts.file("json", "a COCO panoptic json"), parts.file("folder", "a folder")
        return Split(name, folder, "panoptic", json, pngs)
    if len(value) > 1:
        raise ValueError(f"{parts.where} must have one format, {_LABELS}; got {value}")
    return Split(name, folder, "instances", parts.file(format_, "a folder"), shapes=format_)


def _video_split(name: str, folder: Path, labels: Keys, value: str | dict) -> Split:
    if isinstance(value, dict):
        raise ValueError(f"{labels.where}: labels of videos must be {_VIDEO_LABELS}, got {value}")
    kind = "video_instances" if value.endswith(".json") else "video_semantic"
    return Split(name, folder, kind, labels.beside(value))
