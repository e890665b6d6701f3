"""`rankseg-d2 dataset init`: the yaml for a folder of images and labels, as far as it can be seen.

A proposal is made from the names of the files and the content of some labels; people edit it.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..._yaml import read_yaml
from ...files import read_json
from ..formats.labelme import labels_of
from ..formats.yolo import is_yolo
from ..holding_out import position
from .label_content import describe_labels, is_label_image, listed_classes
from .pairing import IMAGES, LABELS
from .recognize import advice, of_json
from .ultralytics import is_data_yaml

FORMATS = ("labelme", "yolo", "rgb", "coco")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
           "test": "test", "testing": "test"}  # fmt: skip
_MOST_FOLDERS = 300  # of images
_SAMPLE = 200  # label files of which the classes are read


class Proposal(NamedTuple):
    """The content of a yaml, what was found, and what to edit."""

    content: dict
    found: str
    edit: str


class Pair(NamedTuple):
    """A folder of images, and the folder of their label files."""

    images: Path
    labels: Path
    suffix: str  # of the label files, if the extension is not all
    files: list[Path]  # the label files


def propose(folder: Path, format_: str | None = None) -> Proposal:
    """The yaml for a folder, of any of the FORMATS or of one; ValueError if no labels are found."""
    tree = _tree(folder)
    finders = {"yolo": (_data_yaml, _yolo), "coco": (_coco,), "labelme": (_labelme,),
               "rgb": (_label_images,)}  # fmt: skip
    every = (_data_yaml, _coco, _labelme, _yolo, _label_images)
    for find in finders.get(format_, every):
        if proposal := find(folder, tree):
            name = "".join(c if c.isalnum() else "_" for c in folder.resolve().name) or "data"
            return proposal._replace(content={"name": name} | proposal.content)
    other = advice(folder)
    raise ValueError(f"{folder} has no images with labels of the same names" + (
        f"; {other}" if other else ": put images into images, and labels into labels"))


def _tree(folder: Path) -> dict[Path, list[Path]]:
    """The files of each folder, without hidden ones."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist")
    tree = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        tree[Path(root)] = [Path(root, name) for name in sorted(names) if name[0] != "."]
    return tree


def _data_yaml(folder: Path, tree: dict) -> Proposal | None:
    for path in (path for files in tree.values() for path in files
                 if path.suffix in (".yaml", ".yml")):
        try:
            found = is_data_yaml(read_yaml(str(path)))
        except ValueError:
            continue
        if found:
            return Proposal({"yolo": str(path.relative_to(folder))}, f"{path.name} of YOLO", _TASK)
    return None


_TASK = ("`task: semantic` and `background: background` make label maps of the polygons; without "
         "them they are objects (instances)")


def _coco(folder: Path, tree: dict) -> Proposal | None:
    jsons = {}
    for files in tree.values():
        of_folder = [path for path in files if path.suffix == ".json"]
        if of_folder and "COCO instance" in of_json(_quiet_json(of_folder[0])):
            jsons |= {path: content for path in of_folder[:20]
                      if "COCO instance" in of_json(content := _quiet_json(path))}
    entries = [(path, _image_folder(content, path, tree)) for path, content in jsons.items()]
    entries = [(path, images) for path, images in entries if images is not None]
    if not entries:
        return None
    splits = {}
    for path, images in entries:
        split = _split_of(path.relative_to(folder).with_suffix("").as_posix()) or "train"
        splits.setdefault(split, {"images": _relative(images, folder),
                                  "labels": _relative(path, folder)})
    found = f"COCO instance json: {', '.join(_relative(path, folder) for path, _ in entries)}"
    if len(splits) > 1:
        return Proposal({"splits": splits}, found, _TASK)
    (json, _), *_ = entries
    names = [os.path.splitext(name)[0] for name in image_names(jsons[json])]
    content = splits.popitem()[1] | {"splits": parts_of(names)}
    return Proposal(content, found, _TASK)


def _quiet_json(path: Path):
    try:
        return read_json(path)
    except (ValueError, OSError):
        return None


def _image_folder(content: dict, json: Path, tree: dict) -> Path | None:
    """The folder in which the first images of a COCO json are."""
    names = image_names(content)[:3]
    return next((folder for folder in (json.parent, *tree)
                 if names and all((folder / name).is_file() for name in names)), None)


def image_names(content: dict) -> list[str]:
    """The images that a COCO json names."""
    images = content.get("images")
    entries = images if isinstance(images, list) else []
    names = [entry.get("file_name") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str) and name and "\0" not in name]


def _labelme(folder: Path, tree: dict) -> Proposal | None:
    pairs = [pair for pair in _pairs(tree, (".json",))
             if any(map(labels_of_quiet, pair.files[:20]))]
    if not pairs:
        return None
    counts = Counter(label for pair in pairs for path in pair.files
                     for label in labels_of_quiet(path))
    keys = _split_keys(pairs, folder, tree, lambda path: {"labelme": path})
    found = f"{_count(pairs)} json files of labelme, with {len(counts)} labels"
    return Proposal(keys | {"classes": sorted(counts)}, found, _TASK)


def labels_of_quiet(path: Path) -> list[str]:
    """The labels of a json of labelme; [] if it is none, or damaged."""
    try:
        return labels_of(path)
    except (ValueError, OSError):
        return []


def _yolo(folder: Path, tree: dict) -> Proposal | None:
    pairs = [pair for pair in _pairs(tree, (".txt",)) if any(map(is_yolo, pair.files[:20]))]
    if not pairs:
        return None
    classes = listed_classes(tree)
    edit = _TASK
    if classes is None:
        numbers = {line.split()[0] for pair in pairs for path in pair.files[:_SAMPLE]
                   for line in path.read_text(errors="replace").splitlines() if line.strip()}
        highest = max((int(number) for number in numbers if number.isdecimal()), default=0)
        classes = [f"class_{i}" for i in range(min(highest, 999) + 1)]
        edit = f"the names of the classes; {_TASK}"
    keys = _split_keys(pairs, folder, tree, lambda path: {"yolo": path})
    found = f"{_count(pairs)} text files of YOLO, with {len(classes)} classes"
    return Proposal(keys | {"classes": classes}, found, edit)


def _label_images(folder: Path, tree: dict) -> Proposal | None:
    pairs = [pair for pair in _pairs(tree, LABELS) if is_label_image(pair.files[0])]
    if not pairs:
        return None
    files = [path for pair in pairs for path in pair.files]
    keys, found, edit = describe_labels(files[:: len(files) // _SAMPLE + 1], tree)
    splits = _split_keys(pairs, folder, tree, lambda path: path)
    return Proposal(splits | keys, f"{_count(pairs)} label images, {found}", edit)


def _pairs(tree: dict, endings: tuple[str, ...]) -> Iterator[Pair]:
    """The folders of images, each with the folder that has most label files of their names."""
    images = {folder: [path for path in files if path.suffix.lower() in IMAGES]
              for folder, files in tree.items()}
    if sum(map(bool, images.values())) > _MOST_FOLDERS:
        raise ValueError(f"more than {_MOST_FOLDERS} folders have images, as of videos; write "
                         "`videos: FOLDER` in a yaml (docs/own_data.md), or name a smaller folder")
    used = set()
    for folder, files in images.items():
        if not files or folder in used:
            continue
        found = [_match(folder, files, other, tree[other], endings) for other in tree]
        found = [pair for pair in found if pair and 2 * len(pair.files) >= len(files)]
        if not found:
            continue
        best = max(found, key=lambda pair: (pair.suffix == "", _nearness(folder, pair.labels),
                                            len(pair.files)))
        if endings == LABELS and not is_label_image(best.files[0]):
            continue
        used.add(best.labels)
        yield best


def _match(
    folder: Path, images: list[Path], other: Path, files: list[Path], endings: tuple[str, ...]
) -> Pair | None:
    """The label files of `other` that have the names of images, and their common suffix."""
    stems, is_same = {path.stem for path in images}, other == folder
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() not in endings:
            continue
        whole = path.stem in stems and not (is_same and path.suffix.lower() in IMAGES)
        length = len(path.stem) if whole else next(
            (n for n in range(len(path.stem) - 1, 0, -1) if path.stem[:n] in stems), 0)
        if length:
            by_suffix.setdefault(path.name[length:], []).append(path)
    if not by_suffix:
        return None
    suffix, found = max(by_suffix.items(), key=lambda item: len(item[1]))
    return Pair(folder, other, "" if suffix.lower() in endings else suffix, found)


def _nearness(folder: Path, other: Path) -> int:
    """How many of the last parts of two folders are equal, such as `train` in */train."""
    return sum(a == b for a, b in zip(folder.parts, other.parts, strict=False))


def _split_keys(pairs: list[Pair], folder: Path, tree: dict, labels) -> dict:
    """The keys images, labels, label_suffix and splits."""
    by_split = {_split_of(_relative(pair.images, folder)): pair for pair in pairs}
    suffix = next((pair.suffix for pair in pairs if pair.suffix), "")
    keys = {"label_suffix": suffix} if suffix else {}
    if suffix and pairs[0].images == pairs[0].labels:
        keys["image_suffix"] = _common_ending(pairs[0])
    if len(by_split) == len(pairs) > 1 and None not in by_split:
        splits = {name: {"images": _relative(pair.images, folder),
                         "labels": labels(_relative(pair.labels, folder))}
                  for name, pair in by_split.items()}
        return keys | {"splits": splits | _test_split(by_split, folder, tree)}
    shared = [Path(os.path.commonpath(paths)) for paths in
              zip(*((pair.images, pair.labels) for pair in pairs), strict=True)]
    ending = len(suffix) if suffix else None
    names = [_relative(path, shared[1])[:-(ending or len(path.suffix))]
             for pair in pairs for path in pair.files]
    return {"images": _relative(shared[0], folder), "labels": labels(_relative(shared[1], folder)),
            **keys, "splits": parts_of(names)}


def parts_of(names: list[str]) -> dict[str, float]:
    """0.8 of the images to train; of a small data set less, so that no part is empty."""
    positions = list(map(position, names))
    for share in (0.8, 0.7, 0.6, 0.5):
        if any(p < share for p in positions) and any(p >= share for p in positions):
            break
    return {"train": share, "val": round(1 - share, 1)}


def _test_split(by_split: dict, folder: Path, tree: dict) -> dict:
    """A folder of images without labels, beside that of another split."""
    known = next(iter(by_split.items()))
    for path, files in tree.items():
        name = _split_of(_relative(path, folder))
        has_images = any(file.suffix.lower() in IMAGES for file in files)
        if name and name not in by_split and has_images and _nearness(path, known[1].images) > 0:
            labelled = {pair.labels for pair in by_split.values()}
            if path not in labelled:
                return {name: {"images": _relative(path, folder), "labels": "none"}}
    return {}


def _common_ending(pair: Pair) -> str:
    """The extension of the images of a folder that has label images too."""
    names = {path.name for path in pair.files}
    return Counter(path.suffix for path in pair.images.iterdir() if path.name not in names
                   and path.suffix.lower() in IMAGES).most_common(1)[0][0]


def _split_of(path: str) -> str | None:
    """The split that a part of a path names."""
    words = path.lower().replace("_", "/").replace("-", "/").replace(".", "/").split("/")
    return next((_SPLITS[word.rstrip("0123456789")] for word in words
                 if word.rstrip("0123456789") in _SPLITS), None)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _count(pairs: list[Pair]) -> int:
    return sum(len(pair.files) for pair in pairs)
