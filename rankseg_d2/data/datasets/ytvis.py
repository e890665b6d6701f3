"""YouTube-VIS 2019 and 2021, 40 classes each: objects that are followed through videos.

Any json of this form can be read, such as OVIS's (docs/own_data.md).
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


def is_held_out(name: str) -> bool:
    """Whether a video of this name is held out.

    Names are those of the videos' folders, so that a video that 2019 and 2021 share is on the same
    side in both.
    """
    return position(name) < HELD_OUT


def folder_name(record: dict) -> str:
    """The name of a video, by its record or its entry in a json: of the folder of its frames."""
    return Path(record["file_names"][0]).parent.name


COMMANDS = {
    f"ytvis-{year}": Command(
        functools.partial(prepare, year),
        ("train",),
        f"YouTube-VIS {year}: json files of the two parts of train, for other tools",
    )
    for year in YEARS
}
