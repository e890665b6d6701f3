"""Pair images with label images, panoptic PNG files, and videos with their labels."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...files import inside
from ..formats.coco_panoptic import contiguous_id, read_segments
from ..formats.video_frames import natural_order, video_size
from ..formats.youtube_vis import load_video_instances
from ..holding_out import position
from .description import OwnData
from .recognize import advice
from .splits import Split

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABELS = (".png", ".tif", ".tiff", ".bmp")


class Fault(NamedTuple):
    """A problem of one file."""

    kind: str  # such as "image without label"
    file: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}" + (f" ({self.text})" if self.text else "")


Pairs = tuple[list[dict], list[Fault]]  # records, and what does not pair


def pair_label_images(data: OwnData, split: Split) -> Pairs:
    """Pair a folder of images with a folder of label images."""
    images = files_below(split.images, data.image_suffix, IMAGES)
    labels = files_below(split.labels, data.label_suffix, LABELS)
    names, faults = choose(images, split, data.image_suffix)
    faults += [Fault("image without label", images[name]) for name in names if name not in labels]
    if not isinstance(split.chosen, Path):
        alone = sorted(labels.keys() - images.keys())
        faults += [Fault("label without image", labels[name]) for name in alone]
    records = [
        {"file_name": images[name], "sem_seg_file_name": labels[name], "image_id": name}
        for name in names if name in labels
    ]
    return records, faults


def pair_segments(data: OwnData, split: Split) -> Pairs:
    """Pair the images of a COCO panoptic json with its PNG files."""
    content = read_segments(split.labels, split.segments)
    try:
        images = {image["id"]: image for image in content["images"]}
        annotations = {note["image_id"]: note for note in content["annotations"]}
        records = [
            {
                "file_name": str(inside(split.images, image["file_name"],
                                        f"{split.labels}: the file_name of image {number}")),
                "image_id": number,
                "height": image["height"],
                "width": image["width"],
                "pan_seg_file_name": str(split.segments / annotations[number]["file_name"]),
                "segments_info": [
                    _segment(segment, data.category_ids, data, split.labels)
                    for segment in annotations[number]["segments_info"]
                ],
            }
            for number, image in images.items() if number in annotations
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{split.labels} is not a COCO panoptic json: {error!r}; for an instance "
                         "json, write labels: FILE, without a folder") from error
    records, faults = chosen_records(records, split)
    of_json = f"in {split.labels}"
    faults += [Fault("image without label", image["file_name"], of_json)
               for number, image in images.items() if number not in annotations]
    faults += [Fault("label without image", annotation["file_name"], of_json)
               for number, annotation in annotations.items() if number not in images]
    return records, faults


def _segment(segment: dict, ids: dict, data: OwnData, json: Path) -> dict:
    class_id = contiguous_id(segment["category_id"], ids, json)
    isthing = bool(data.classes[class_id].isthing)
    return {"iscrowd": 0} | segment | {"category_id": class_id, "isthing": isthing}


def image_name(record: dict, folder: Path) -> str:
    """The path of an image relative to the folder, without extension."""
    return Path(os.path.relpath(record["file_name"], folder)).with_suffix("").as_posix()


def chosen_records(records: list[dict], split: Split, name_of: Callable = image_name) -> Pairs:
    """The records of the split; `name_of(record, folder)` is the name that it lists."""
    if split.chosen is None:
        return records, []
    by_name = {}
    for record in records:
        name = name_of(record, split.images)
        if name in by_name:
            what = "videos" if "file_names" in record else "images"
            raise ValueError(f"{split.labels} has two {what} {name!r}, so splits by name are "
                             "ambiguous; give each its own name")
        by_name[name] = record
    names, faults = choose(by_name, split)
    return [by_name[name] for name in names], faults


def pair_label_videos(data: OwnData, split: Split) -> Pairs:
    """Pair the frames of each video with a folder of label images."""
    videos, label_folders = video_folders(split.images), video_folders(split.labels)
    names, faults = choose(videos, split)
    if not isinstance(split.chosen, Path):
        alone = sorted(label_folders.keys() - videos.keys())
        faults += [Fault("labels without video", str(label_folders[name])) for name in alone]
    records = []
    for name in names:
        frames = files_below(videos[name], data.image_suffix, IMAGES)
        labels = {}
        if name in label_folders:
            labels = files_below(label_folders[name], data.label_suffix, LABELS)
        faults += [Fault("image without label", frames[k]) for k in frames if k not in labels]
        faults += [Fault("label without image", labels[k]) for k in labels if k not in frames]
        keys = sorted(frames.keys() & labels.keys(), key=natural_order)
        if not frames:
            faults.append(Fault("empty video", str(videos[name])))
        if keys:
            record = video_record(name, [frames[key] for key in keys])
            records.append(record | {"sem_seg_file_names": [labels[key] for key in keys]})
    return records, faults


def video_record(name: str, paths: list[str]) -> dict:
    return {"video_id": name, "file_names": paths, "length": len(paths)} | video_size(paths)


def video_folders(pattern: Path) -> dict[str, Path]:
    """The folder of each video's files; `*` in the path, or at its end, is the video's name."""
    parts = pattern.parts
    star = parts.index("*") if "*" in parts else len(parts)
    base, rest = Path(*parts[:star]), parts[star + 1 :]
    _check_folder(base)
    folders = {entry.name: entry.joinpath(*rest) for entry in base.iterdir()}
    return {name: folder for name, folder in sorted(folders.items())
            if folder.is_dir() and not name.startswith(".")}


def pair_object_videos(data: OwnData, split: Split) -> Pairs:
    """The videos of a YouTube-VIS json."""
    records = load_video_instances(
        split.labels, split.images, {"thing_dataset_id_to_contiguous_id": data.category_ids}
    )
    return chosen_records(records, split, _video_name)


def _video_name(record: dict, folder: Path) -> str:
    """The relative path of a video's frames, or the video's id if they are in `folder` itself."""
    name = Path(os.path.relpath(record["file_names"][0], folder)).parent.as_posix()
    return str(record["video_id"]) if name == "." else name


def choose(known: dict, split: Split, suffix: str = "") -> tuple[list[str], list[Fault]]:
    """The names of the split, and a fault for each name of its list that is not in `known`."""
    if split.chosen is None:
        return sorted(known), []
    if isinstance(split.chosen, tuple):
        start, end = split.chosen
        return sorted(name for name in known if start <= position(name) < end), []
    if not split.chosen.is_file():
        raise FileNotFoundError(f"splits: {split.name}: {split.chosen} does not exist")
    lines = split.chosen.read_text(encoding="utf-8-sig").splitlines()
    listed = dict.fromkeys(line.strip() for line in lines if line.strip())
    names = [name if name in known else _without_end(name, suffix, IMAGES) for name in listed]
    faults = [Fault("listed image missing", name, str(split.chosen))
              for name in names if name not in known]
    return [name for name in names if name in known], faults


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        other = advice(folder)
        raise NotADirectoryError(f"{folder} is a file, but must be a folder"
                                 + (f"; {other}" if other else ""))
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist; paths in a data set's yaml "
                                "are relative to the yaml")


def files_below(folder: Path, suffix: str, extensions: tuple[str, ...]) -> dict[str, str]:
    """The files with the suffix or one of the extensions: relative path without that -> path."""
    _check_folder(folder)
    files = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root, name)
            if name.startswith(".") or not name.lower().endswith(suffix.lower() or extensions):
                continue
            key = _without_end(path.relative_to(folder).as_posix(), suffix, extensions)
            if key in files:
                raise ValueError(f"{files[key]} and {path} have the same name; remove one of them, "
                                 "or set image_suffix and label_suffix")
            files[key] = str(path)
    return files


def _without_end(name: str, suffix: str, extensions: tuple[str, ...]) -> str:
    if suffix and name.lower().endswith(suffix.lower()):
        return name[: -len(suffix)]
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in extensions else name


def segment_faults(record: dict, ids: np.ndarray) -> list[Fault]:
    """The fault if the segment ids of the json differ from those of its PNG, where 0 is none."""
    in_png = set(ids.tolist()) - {0}
    in_json = {segment["id"] for segment in record["segments_info"]}
    if in_png == in_json:
        return []
    parts = [f"{len(alone)} segments only in the {where}, such as id {min(alone)}"
             for alone, where in ((in_json - in_png, "json"), (in_png - in_json, "PNG")) if alone]
    return [Fault("json and PNG differ", record["pan_seg_file_name"], "; ".join(parts))]
