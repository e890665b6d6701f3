"""The data.yaml of YOLO data sets: folders of images, and names of classes."""

from pathlib import Path, PurePosixPath

from ..._yaml import read_yaml
from .keys import Keys

_SPLITS = ("train", "val", "test")


def is_data_yaml(content: dict) -> bool:
    """Whether the content of a yaml is that of a data.yaml of YOLO."""
    return "names" in content and bool({"train", "val"} & content.keys())


def expand_yolo(keys: Keys) -> Keys:
    """The keys; `yolo`, a data.yaml, gives classes, and images and labels of each split."""
    if "yolo" not in keys.values:
        return keys
    unused = sorted({"images", "videos", "labels", "classes", "splits"} & keys.values.keys())
    if unused:
        raise ValueError(f"{keys.where}: the file of `yolo` gives {unused[0]}; remove one of the "
                         "two")
    path = keys.file("yolo", "a data.yaml of YOLO")
    content = read_yaml(str(path))
    if not is_data_yaml(content):
        raise ValueError(f"{path} is not a data.yaml of YOLO: it must have names, and train or val")
    splits = {split: _split(path, content, split) for split in _SPLITS if content.get(split)}
    return keys.with_values({"classes": _names(path, content["names"]), "splits": splits})


def _names(path: Path, names) -> list:
    """The names by class id: a list, or {id: name}."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{path}: names must have the ids 0 to {len(names) - 1}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f"{path}: names must be a list, or {{0: name, 1: name, ...}}")
    return names


def _split(path: Path, content: dict, split: str) -> dict:
    """The folders of a split: in the path of the labels, `images` is `labels`."""
    folder, root = content[split], content.get("path") or ""
    if not isinstance(folder, str) or not isinstance(root, str) or folder.endswith(".txt"):
        raise ValueError(f"{path}: {split} must be one folder of images, got {folder!r}; for lists "
                         "of files, write images, labels: {yolo: FOLDER} and splits "
                         "(docs/own_data.md)")
    images = _found(path.parent, PurePosixPath(root), PurePosixPath(folder))
    parts = list(images.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    labels = Path(*parts)
    has_none = split == "test" and not labels.is_dir()
    return {"images": str(images), "labels": "none" if has_none else {"yolo": str(labels)}}


def _found(beside: Path, root: PurePosixPath, folder: PurePosixPath) -> Path:
    """The first folder that exists; some tools write a root or `..` that are not true."""
    plain = PurePosixPath(*(part for part in folder.parts if part != ".."))
    choices = [beside / root / folder, beside / folder, beside / plain]
    return next((path for path in choices if path.is_dir()), choices[0])
