"""YouTube-VIS 2019 and 2021, 40 classes each: objects that are followed through videos.

Any json of this form can be read, such as OVIS's (docs/own_data.md).
"""

import functools
import hashlib
import os
from collections import defaultdict
from pathlib import Path

from detectron2.structures import BoxMode

from ...files import write_json
from ..classes import load_classes
from ..formats.coco_instances import instance_metadata
from ..formats.coco_panoptic import contiguous
from . import common
from .common import Command, read_json

YEARS = (2019, 2021)
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # name -> folder
HELD_OUT = 0.1  # share of the training videos


def register(root: Path) -> None:
    """`ytvis_{2019,2021}_{train,val,test}`, and train's parts `train_held_in`, `train_held_out`.

    The labels of val and test are not public: what is held out of train takes their place.
    """
    for year in YEARS:
        metadata = instance_metadata(load_classes(f"ytvis{year}_40"))
        for split, folder in SPLITS.items():
            json_file = find_json(root, year, folder)
            facts = {
                "evaluator_type": "ytvis",
                "image_root": root / f"ytvis_{year}" / folder / "JPEGImages",
                **metadata,
            }
            load = functools.partial(load_registered, root, year, folder)
            common.register(f"ytvis_{year}_{split}", load, json_file=json_file, **facts)
            if split == "train":  # parts of a json have no file of their own: see the records
                for part in ("held_in", "held_out"):
                    load_part = functools.partial(load_registered, root, year, folder, part=part)
                    common.register(f"ytvis_{year}_{split}_{part}", load_part, **facts)


def find_json(root: Path, year: int, folder: str) -> Path:
    """Where upstream has the json or, if it is only there, where the archive of 2021 has it."""
    names = f"{folder}.json", f"{folder}/instances.json"
    places = [root / f"ytvis_{year}" / name for name in names]
    return next((path for path in places if path.is_file()), places[0])


def load_registered(root: Path, year: int, folder: str, part: str | None = None) -> list[dict]:
    records = load_video_instances(
        find_json(root, year, folder),
        root / f"ytvis_{year}" / folder / "JPEGImages",
        instance_metadata(load_classes(f"ytvis{year}_40")),
    )
    if part is not None:
        records = [r for r in records if is_held_out(folder_name(r)) == (part == "held_out")]
    check_frames(records)
    return records


def prepare(year: int, root: Path, split: str, workers: int) -> None:
    """Write the parts of train as json files too, for tools that know only such."""
    json_file = find_json(root, year, split)
    content = read_json(json_file)
    for part in ("held_in", "held_out"):
        videos = [
            video for video in content["videos"]
            if is_held_out(folder_name(video)) == (part == "held_out")
        ]
        ids = {video["id"] for video in videos}
        annotations = [a for a in content["annotations"] if a["video_id"] in ids]
        target = root / f"ytvis_{year}" / f"{split}_{part}.json"
        write_json(target, content | {"videos": videos, "annotations": annotations})


def is_held_out(name: str, share: float = HELD_OUT) -> bool:
    """Whether a video of this name is held out: the same for ever, on every machine.

    Names are those of the videos' folders, so that a video that 2019 and 2021 share is on the same
    side in both.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def folder_name(record: dict) -> str:
    """The name of a video, by its record or its entry in a json: of the folder of its frames."""
    return Path(record["file_names"][0]).parent.name


def load_video_instances(json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    """Records of a json of YouTube-VIS's form by rising video id, with contiguous category ids.

    Without annotations in the json, the records have none. Whether the frames are there is not
    looked at.
    """
    try:
        return _records(read_json(json_file), json_file, image_root, metadata)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{json_file} is not a json of YouTube-VIS's form: {error!r}") from error


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
            "videos; the file is damaged, or videos were taken out of it"
        )
    return records


def _video_record(video: dict, json_file: Path, image_root: Path) -> dict:
    names = video["file_names"]
    if not names:
        raise ValueError(
            f"{json_file}: the video {video['id']} is empty, for it has no file_names; take it out"
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
            f"{what}; mend the json: there is one for each frame, null where an object is absent"
        )


def _objects_by_frame(
    annotations: list[dict], record: dict, json_file: Path, metadata: dict
) -> list[list[dict]]:
    """The objects that are there, of each frame."""
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
            "category_id": contiguous(annotation["category_id"], known, json_file),
            "iscrowd": annotation.get("iscrowd", 0),
        }
        shapes = annotation.get("segmentations") or []
        boxes = annotation.get("bboxes") or [None] * len(shapes)
        for key, values in (("segmentations", shapes), ("bboxes", boxes)):
            what = f"{len(values)} {key} of the object {facts['id']}"
            _check_count(len(values), what, record, json_file)
        for frame, shape, box in zip(frames, map(compact, shapes), boxes, strict=True):
            if shape:
                place = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS} if box else {}
                frame.append(facts | place | {"segmentation": shape})
    return frames


def compact(shape: dict | list | None) -> dict | list | None:
    """A mask as few bytes: compressed run lengths, or the polygons that have three corners."""
    from pycocotools import mask as mask_util

    if isinstance(shape, dict) and isinstance(shape["counts"], list):
        return mask_util.frPyObjects(shape, *shape["size"])
    if isinstance(shape, list):
        return [polygon for polygon in shape if len(polygon) >= 6 and len(polygon) % 2 == 0]
    return shape


def check_frames(records: list[dict]) -> None:
    """Raise FileNotFoundError where a frame of a video is not there."""
    paths = [path for record in records for path in record["file_names"]]
    there = {folder: _listing(folder) for folder in {os.path.dirname(path) for path in paths}}
    missing = [path for path in paths if os.path.basename(path) not in there[os.path.dirname(path)]]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} frames are missing, such as {missing[0]}; unpack the "
            "data set again, or name the folder that has them (datasets/README.md)"
        )


def _listing(folder: str) -> set[str]:
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


COMMANDS = {
    f"ytvis-{year}": Command(
        functools.partial(prepare, year),
        ("train",),
        f"YouTube-VIS {year}: json files of the two parts of train, for other tools",
    )
    for year in YEARS
}
