"""YouTube-VIS' format: a json of objects with one mask per frame of their video."""

from collections import defaultdict
from pathlib import Path

from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ...files import inside, read_json
from . import rle
from .coco_panoptic import contiguous_id
from .file_lists import missing_files
from .json_checks import check_facts, check_ids, check_masks_of, check_size, entries, owner, usable

_OF_FRAMES = (("bbox", "bboxes"), ("area", "areas"))  # of an image and of a video


def load_video_instances(json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    """Records of a YouTube-VIS json, sorted by video id, with contiguous category ids.

    If the json has no annotations, the records have none. `check_frames` checks that the frames
    exist; this does not.
    """
    content = read_videos(json_file)
    annotations, of_video = content.get("annotations"), defaultdict(list)
    for annotation in annotations or ():
        of_video[annotation["video_id"]].append(annotation)
    records = []
    for video in sorted(content["videos"], key=lambda video: video["id"]):
        where = f"{json_file}: a file_name of the video {video['id']}"
        record = {
            "video_id": video["id"],
            "file_names": [str(inside(image_root, name, where)) for name in video["file_names"]],
            "length": len(video["file_names"]),
            "height": int(video["height"]),
            "width": int(video["width"]),
        }
        if annotations is not None:
            record["annotations"] = _objects_by_frame(of_video[video["id"]], record, json_file,
                                                      metadata)  # fmt: skip
        records.append(record)
    return records


def read_videos(json_file: str | Path, is_exact: bool = False) -> dict:
    """The content of a YouTube-VIS json; ValueError, with the entry, if something is wrong.

    is_exact: for an evaluation, which needs polygons of 3 corners or more.
    """
    content = read_json(json_file, PathManager.open)
    videos = entries(content, "videos", {"id", "height", "width", "file_names"}, json_file)
    check_ids((video["id"] for video in videos), "videos", json_file)
    for video in videos:
        _check_video(video, f"{json_file}: the video {video['id']}")
    if content.get("annotations") is not None:
        _check_objects(content, {video["id"]: video for video in videos}, json_file, is_exact)
    return content


def _check_video(video: dict, where: str) -> None:
    check_size(video, where)
    names = video["file_names"]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{where} has no file_names; remove it")
    if (length := video.get("length", len(names))) != len(names):
        raise ValueError(f"{where} has {len(names)} file_names, but a length of {length!r}; fix "
                         "the json")


def _check_objects(content: dict, videos: dict, json_file: str | Path, is_exact: bool) -> None:
    """Raise an error unless each object has one mask, box and area, or null, for each frame."""
    needed = {"id", "video_id", "category_id"}
    objects = entries(content, "annotations", needed, json_file)
    named, sizes, ids = [], [], defaultdict(list)
    for one in objects:
        name = f"the object {one['id']} of the video {one['video_id']}"
        video = owner(one, "video_id", videos)
        if video is None:
            raise ValueError(f"{json_file} has annotations of the video_id {one['video_id']!r}, "
                             "which is none of its videos; add the video, or remove its "
                             "annotations")
        check_facts(one, f"{json_file}: {name}")
        ids[one["video_id"]].append(one["id"])
        shapes = one.get("segmentations") or []
        for key in ("segmentations", "bboxes", "areas"):
            values = one.get(key) or [None] * len(shapes)
            if not isinstance(values, list) or len(values) != len(video["file_names"]):
                count = f"{len(values)} {key}" if isinstance(values, list) else f"no list of {key}"
                raise ValueError(f"{json_file}: {name} has {count}, but its video has "
                                 f"{len(video['file_names'])} file_names; give one for each "
                                 "frame, null where the object is absent")
        for frame, shape in enumerate(shapes):
            where = f"{name} in frame {frame}"
            facts = {key: one[plural][frame] for key, plural in _OF_FRAMES if one.get(plural)}
            check_facts({k: x for k, x in facts.items() if x is not None}, f"{json_file}: {where}")
            if shape:
                named.append((where, shape if is_exact else usable(shape)))
                sizes.append((video["height"], video["width"]))
    for video_id, of_video in ids.items():
        check_ids(of_video, f"objects of the video {video_id}", json_file)
    check_masks_of(named, sizes, json_file)


def _objects_by_frame(
    annotations: list[dict], record: dict, json_file: Path, metadata: dict
) -> list[list[dict]]:
    """The objects that each frame shows."""
    known = metadata["thing_dataset_id_to_contiguous_id"]
    frames = [[] for _ in record["file_names"]]
    for annotation in annotations:
        facts = {
            "id": annotation["id"],
            "category_id": contiguous_id(annotation["category_id"], known, json_file),
            "iscrowd": annotation.get("iscrowd", 0),
        }
        shapes = annotation["segmentations"]
        boxes = annotation.get("bboxes") or [None] * len(frames)
        for frame, shape, box in zip(frames, shapes, boxes, strict=True):
            if kept := usable(shape):
                where = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS} if box else {}
                kept = rle.compressed(kept) if isinstance(kept, dict) else kept
                frame.append(facts | where | {"segmentation": kept})
    return frames


def check_frames(records: list[dict]) -> None:
    """Raise FileNotFoundError if a frame of a video does not exist."""
    paths = [path for record in records for path in record["file_names"]]
    missing = missing_files(paths)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} frames are missing, such as {missing[0]}; unpack the "
            "data set again, or name the folder that has them (datasets/README.md)"
        )

