"""YouTube-VIS 2019 and 2021, 40 classes each: videos with object tracks.

docs/own_data.md shows how to use other data sets of this format, such as OVIS.
"""

import functools
from pathlib import Path

from ...files import read_json, write_json
from ..classes import load_classes
from ..formats.coco_instances import instance_metadata
from ..formats.youtube_vis import check_frames, load_video_instances
from ..holding_out import position
from . import common
from .common import Command

_YEARS = (2019, 2021)
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # name -> folder
_HELD_OUT = 0.1  # share of the training videos


def register(root: Path) -> None:
    """`ytvis_{2019,2021}_{train,val,test}`, and the parts `train_held_in`, `train_held_out`.

    The labels of val and test are not public; `train_held_out` serves to evaluate.
    """
    for year in _YEARS:
        for split, folder in SPLITS.items():
            facts = {
                "evaluator_type": "ytvis",
                "image_root": root / f"ytvis_{year}" / folder / "JPEGImages",
            }
            load = functools.partial(_load_registered, root, year, folder)
            read = functools.partial(_read_metadata, root, year, folder)
            common.register_dataset(f"ytvis_{year}_{split}", load, read, **facts)
            if split == "train":  # no json_file: a part has no json of its own
                read_classes = functools.partial(_read_classes, year)
                for part in ("held_in", "held_out"):
                    load_part = functools.partial(load, part=part)
                    name = f"ytvis_{year}_{split}_{part}"
                    common.register_dataset(name, load_part, read_classes, **facts)


def _read_classes(year: int) -> dict:
    return instance_metadata(load_classes(f"ytvis{year}_40"))


def _read_metadata(root: Path, year: int, folder: str) -> dict:
    return _read_classes(year) | {"json_file": _find_json(root, year, folder)}


def _find_json(root: Path, year: int, folder: str) -> Path:
    """The json beside its folder, as upstream has it, or in it, as the archive of 2021 has it."""
    names = f"{folder}.json", f"{folder}/instances.json"
    paths = [root / f"ytvis_{year}" / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def _load_registered(root: Path, year: int, folder: str, part: str | None = None) -> list[dict]:
    """Records of a split, or of its part "held_in" or "held_out"."""
    records = load_video_instances(
        _find_json(root, year, folder),
        root / f"ytvis_{year}" / folder / "JPEGImages",
        _read_classes(year),
    )
    if part is not None:
        records = [r for r in records if is_held_out(_folder_name(r)) == (part == "held_out")]
    check_frames(records)
    return records


def prepare(year: int, root: Path, split: str, workers: int) -> None:
    """Write the parts of train as json files, for tools that need a json."""
    json_file = _find_json(root, year, split)
    content = read_json(json_file)
    for part in ("held_in", "held_out"):
        videos = [
            video for video in content["videos"]
            if is_held_out(_folder_name(video)) == (part == "held_out")
        ]
        ids = {video["id"] for video in videos}
        annotations = [a for a in content["annotations"] if a["video_id"] in ids]
        target = root / f"ytvis_{year}" / f"{split}_{part}.json"
        write_json(target, content | {"videos": videos, "annotations": annotations})


def is_held_out(name: str) -> bool:
    """Whether the video with this folder name is held out.

    A video that is in 2019 and 2021 has the same folder name, so it is in the same part of both.
    """
    return position(name) < _HELD_OUT


def _folder_name(record: dict) -> str:
    """The name of the folder of a video's frames; `record` may also be its entry in a json."""
    return Path(record["file_names"][0]).parent.name


COMMANDS = {
    f"ytvis-{year}": Command(
        functools.partial(prepare, year),
        ("train",),
        f"YouTube-VIS {year}: json files of the two parts of train, for other tools",
    )
    for year in _YEARS
}
