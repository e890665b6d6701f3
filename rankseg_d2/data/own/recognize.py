"""Name the format of labels that are not what the yaml says, and what to do with it."""

import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

from ...files import read_json
from ..formats.yolo import is_yolo

_SEEN = 2000  # files of a folder
_HEAD = 4096  # characters of an xml file
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
_CONVERT = "`rankseg-d2 dataset convert {0} FOLDER` makes label images of it, or write {1}"
_YOLO = ("YOLO's text files: "
         + _CONVERT.format("yolo", "`labels: {yolo: FOLDER}`, or `yolo: data.yaml`"))
_VOC = ("xml files of Pascal VOC, which have boxes and no masks: use the PNG files of its folder "
        "SegmentationClass as labels, or export masks or polygons (COCO) from your tool")
_CVAT = ("the xml of CVAT: export the task again as `COCO 1.0` (polygons) or as `Segmentation mask "
         "1.1` (label images, with `color` in classes)")


def advice(path: Path | None) -> str:
    """What a file or folder of labels is, and what to do; "" if it is not known."""
    if path is None:
        return ""
    try:
        found = _of_file(path) if path.is_file() else _of_folder(path)
    except (OSError, ValueError):
        return ""
    return f"{path} has {found}" if found else ""


def _of_folder(folder: Path) -> str:
    """The format of the first file of a folder that has one."""
    walk = (Path(root, name) for root, _, names in os.walk(folder) for name in sorted(names))
    files = list(islice(walk, _SEEN))
    for ending in (".json", ".xml", ".txt"):
        for path in [path for path in files if path.suffix.lower() == ending][:3]:
            if found := _of_file(path):
                return found
    return ""


def _of_file(path: Path) -> str:
    ending = path.suffix.lower()
    if ending == ".json":
        return of_json(read_json(path))
    if ending == ".xml":
        with open(path, encoding="utf-8", errors="replace") as file:
            root = re.search(r"<(annotations?)\b", file.read(_HEAD))
        return {"annotation": _VOC, "annotations": _CVAT}.get(root and root[1], "")
    if ending in _VIDEOS:
        return ("one video; write its frames into a folder of that name, as by `ffmpeg -i "
                f"{path.name} {path.stem}/%06d.jpg`")
    return _YOLO if ending == ".txt" and is_yolo(path) else ""


def of_json(content: Any) -> str:
    """The format of a json, and what to do; "" if it is not known."""
    first = content[0] if isinstance(content, list) and content else {}
    if isinstance(first, dict) and {"annotations", "completions"} & first.keys() and (
        "data" in first):
        return "a json of Label Studio: export as `COCO`, or as `Brush labels to PNG`"
    if not isinstance(content, dict):
        return ""
    if isinstance(content.get("shapes"), list):
        return "json files of labelme: " + _CONVERT.format("labelme", "`labels: {labelme: FOLDER}`")
    if "_via_img_metadata" in content or any(
        isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()
        for entry in islice(content.values(), 3)
    ):
        return ("a json of the VGG Image Annotator: export in it as `COCO format`, and name that "
                "file as labels")
    if "imgHeight" in content and "objects" in content:
        return ("polygons of Cityscapes: use its label images, label_suffix: "
                "_gtFine_labelTrainIds.png")
    if "objects" in content and isinstance(content.get("size"), dict):
        return "json files of Supervisely: export as `COCO`, or as masks"
    if isinstance(content.get("items"), list) and "categories" in content:
        return "a json of Datumaro: export as `coco_instances`"
    annotations = content.get("annotations")
    if isinstance(annotations, list) and "categories" in content:
        if annotations and isinstance(annotations[0], dict) and "segments_info" in annotations[0]:
            return "a COCO panoptic json: write `labels: {json: FILE, folder: FOLDER OF ITS PNGS}`"
        return "a COCO instance json: write `labels: FILE.json`"
    return ""
