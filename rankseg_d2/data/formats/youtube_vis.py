"""YouTube-VIS' format: a json of objects with one mask per frame of their video."""

import os
from collections import defaultdict
from pathlib import Path

from detectron2.structures import BoxMode

from ...files import read_json
from . import rle
from .coco_panoptic import contiguous_id


def load_video_instances(json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    """Records of a YouTube-VIS json, sorted by video id, with contiguous category ids.

    If the json has no annotations, the records have none. `check_frames` checks that the frames
    exist; this does not.
    """
    try:
        return _records(read_json(json_file), json_file, image_root, metadata)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{json_file} is not a YouTube-VIS json: {error!r}") from error


def _records(content: dict, json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    if len({video["id"] for video in content["videos"]}) < len(content["videos"]):
        raise ValueError(f"{json_file}: two videos have the same id; give each its own")
    annotations, of_video = content.get("annotations"), defaultdict(list)
    for annotation in annotations or ():
        of_video[annotation["video_id"]].append(annotation)
    records = []
    for video in sorted(content["videos"], key=lambda video: video["id"]):
        record = _video_record(video, json_file, image_root)
        if annotations is not None:
            record["annotations"] = _objects_by_frame(
                of_video.pop(video["id"], []), record, json_file, metadata
            )
        records.append(record)
    if of_video:
        raise ValueError(
            f"{json_file} has annotations of the video_id {min(of_video)}, which is none of its "
            "videos; add the video, or remove its annotations"
        )
    return records


def _video_record(video: dict, json_file: Path, image_root: Path) -> dict:
    names = video["file_names"]
    if not names:
        raise ValueError(
            f"{json_file}: the video {video['id']} has no file_names; remove it"
        )
    length = video.get("length", len(names))
    record = {
        "video_id": video["id"],
        "file_names": [os.path.join(image_root, name) for name in names],
        "length": len(names),
        "height": video["height"],
        "width": video["width"],
    }
    _check_count(length, f"a length of {length}", record, json_file)
    return record


def _check_count(count: int, what: str, record: dict, json_file: Path) -> None:
    if count != record["length"]:
        raise ValueError(
            f"{json_file}: the video {record['video_id']} has {record['length']} file_names, but "
            f"{what}; fix the json: one for each frame, null where an object is absent"
        )


def _objects_by_frame(
    annotations: list[dict], record: dict, json_file: Path, metadata: dict
) -> list[list[dict]]:
    """The objects that each frame shows."""
    known = metadata["thing_dataset_id_to_contiguous_id"]
    if len({annotation["id"] for annotation in annotations}) < len(annotations):
        raise ValueError(
            f"{json_file}: two objects of the video {record['video_id']} have the same id; give "
            "each its own"
        )
    frames = [[] for _ in record["file_names"]]
    for annotation in annotations:
        facts = {
            "id": annotation["id"],
            "category_id": contiguous_id(annotation["category_id"], known, json_file),
            "iscrowd": annotation.get("iscrowd", 0),
        }
        shapes = annotation.get("segmentations") or []
        boxes = annotation.get("bboxes") or [None] * len(shapes)
        for key, values in (("segmentations", shapes), ("bboxes", boxes)):
            what = f"{len(values)} {key} of the object {facts['id']}"
            _check_count(len(values), what, record, json_file)
        for frame, shape, box in zip(frames, map(_compact, shapes), boxes, strict=True):
            if shape:
                where = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS} if box else {}
                frame.append(facts | where | {"segmentation": shape})
    return frames


def _compact(shape: dict | list | None) -> dict | list | None:
    """A mask in few bytes: a compressed RLE, or its polygons with three corners or more."""
    if isinstance(shape, dict):
        return rle.compressed(shape)
    if isinstance(shape, list):
        return [polygon for polygon in shape if len(polygon) >= 6 and len(polygon) % 2 == 0]
    return None


def check_frames(records: list[dict]) -> None:
    """Raise FileNotFoundError if a frame of a video does not exist."""
    paths = [path for record in records for path in record["file_names"]]
    found = {folder: _listing(folder) for folder in {os.path.dirname(path) for path in paths}}
    missing = [path for path in paths if os.path.basename(path) not in found[os.path.dirname(path)]]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} frames are missing, such as {missing[0]}; unpack the "
            "data set again, or name the folder that has them (datasets/README.md)"
        )


def _listing(folder: str) -> set[str]:
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()
