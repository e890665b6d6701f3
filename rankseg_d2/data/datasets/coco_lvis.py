"""COCO+LVIS (ESSNet): the 1,203 things of LVIS v1 and 81 more classes of COCO-Stuff.

The splits are LVIS': 15,000 of the 19,809 images of "val" are in COCO's train2017. So a list names
the images of a split, not a folder.
"""

import functools
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np

from ...files import read_json, write_image, write_json
from ..classes import load_classes
from ..formats.file_lists import find
from ..formats.painting import paint_categories
from ..prepare.job import Job, Preparation, make_files
from . import common
from .common import Command

_STUFF_FOLDERS = {"train": ("train2017",), "val": ("train2017", "val2017")}
IGNORE = 65535
_STUFF_VALUES = 256  # ids in COCO's stuff json are lower

logger = logging.getLogger(__name__)


def register(root: Path) -> None:
    """`coco_lvis_sem_seg_{train,val}`."""
    for split in _STUFF_FOLDERS:
        common.register_dataset(
            f"coco_lvis_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            lambda: common.semantic_metadata(load_classes("coco_lvis_1284")),
            image_root=root / "coco",
            sem_seg_root=root / "coco_lvis" / split,
            evaluator_type="sem_seg",
            ignore_label=IGNORE,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    preparation(root, split).require()
    entries = read_json(root / f"coco_lvis/{split}.json")["images"]
    images = find(root, "coco/train2017/*.jpg") | find(root, "coco/val2017/*.jpg")
    records = common.semantic_records(
        images,
        find(root, f"coco_lvis/{split}/*.png"),
        f"coco_lvis_sem_seg_{split}",
        [Path(entry["file_name"]).stem for entry in entries],
    )
    sizes = ({"height": entry["height"], "width": entry["width"]} for entry in entries)
    return [record | size for record, size in zip(records, sizes, strict=True)]


def prepare(root: Path, split: str, workers: int, essnet_compat: bool = False) -> None:
    """Annotations of LVIS and COCO-Stuff -> 16-bit label maps (0..1283, 65535: ignore)."""
    with preparation(root, split).making(essnet_compat=essnet_compat) as not_before:
        things_file = root / f"lvis/lvis_v1_{split}.json"
        stuff_files = [
            root / f"coco/annotations/stuff_{folder}.json" for folder in _STUFF_FOLDERS[split]
        ]
        images, things = _read_annotations(things_file)
        stuff = {}
        for path in stuff_files:
            stuff |= _read_annotations(path)[1]
        if split == "train":
            images = [image for image in images if image["id"] in things or image["id"] in stuff]
        entries = [_index_entry(image, things_file) for image in images]
        sources, folder = (things_file, *stuff_files), root / "coco_lvis" / split
        jobs = []
        for entry in entries:
            annotations = [found.get(entry["id"], []) for found in (things, stuff)]
            args = (entry["height"], entry["width"], *annotations, essnet_compat)
            name = f"{Path(entry['file_name']).stem}.png"
            jobs.append(Job(folder / name, sources, args))
        make_files(convert, jobs, f"coco-lvis {split}", workers, not_before)
        write_json(folder.with_suffix(".json"), {"images": entries})


def convert(job: Job) -> None:
    """LVIS instances over stuff; where annotations overlap, the first one wins."""
    height, width, things, stuff, essnet_compat = job.args
    where = f"{job.sources[0].parent}, image {job.target.stem}"
    # In reverse, because the annotation painted last wins.
    values, stuff = (paint_categories(x[::-1], height, width, where) for x in (things, stuff))
    stuff_values = _label_of_stuff(essnet_compat)[stuff]  # (H, W), 1 to 1284, 0 is none
    values = np.where(values > 0, values, stuff_values)  # 1 to 1284
    write_image(job.target, np.where(values > 0, values - 1, IGNORE).astype(np.uint16))


@functools.cache
def _label_of_stuff(essnet_compat: bool) -> np.ndarray:
    """Category id in COCO's stuff json -> 1 to 1284; 0 for ids that are not stuff ("other").

    ESSNet's published script maps the ids in place, one rule after the other. So blanket, mapped to
    110, is mapped again by the rule for 110 (desk-stuff), and cabinet, 98 -> 181, by the rule for
    181 (window-other). `essnet_compat` reproduces these wrong labels.
    """
    entries = [entry for entry in load_classes("coco_lvis_1284") if "coco_stuff_id" in entry]
    if not essnet_compat:
        table = np.zeros(_STUFF_VALUES, np.int64)
        table[[entry["coco_stuff_id"] for entry in entries]] = [entry["id"] for entry in entries]
        return table
    table = np.arange(_STUFF_VALUES)
    for entry in sorted(entries, key=lambda entry: entry["coco_stuff_id"]):
        table[table == entry["coco_stuff_id"]] = entry["id"]
    is_stuff = np.isin(np.arange(_STUFF_VALUES), [entry["coco_stuff_id"] for entry in entries])
    return np.where(is_stuff, table, 0)


def _read_annotations(path: Path) -> tuple[list[dict], dict[int, list[tuple[int, object]]]]:
    """The images of a json, and (category id, segmentation) of all annotations by image id."""
    content = read_json(path)
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        pair = (annotation["category_id"], annotation["segmentation"])
        annotations[annotation["image_id"]].append(pair)
    return content["images"], dict(annotations)


def _index_entry(image: dict, path: Path) -> dict:
    """The entry of an LVIS image in the list of its split; its folder is in its web address."""
    folder, name = image["coco_url"].split("/")[-2:]
    if folder not in ("train2017", "val2017"):
        raise ValueError(
            f"{path}: image {image['id']} is in {folder}, but COCO+LVIS has only images of "
            "train2017 and val2017; use lvis_v1_train.json and lvis_v1_val.json of LVIS v1"
        )
    sizes = {"height": image["height"], "width": image["width"]}
    return {"id": image["id"], "file_name": f"{folder}/{name}"} | sizes


def preparation(root: Path, split: str) -> Preparation:
    stuff = (f"coco/annotations/stuff_{folder}.json" for folder in _STUFF_FOLDERS[split])
    return Preparation(
        "coco-lvis",
        root,
        f"coco_lvis/prepared_{split}.json",
        outputs=(f"coco_lvis/{split}.json", f"coco_lvis/{split}/*.png"),
        sources=(f"lvis/lvis_v1_{split}.json", *stuff),
    )


COMMANDS = {
    "coco-lvis": Command(
        prepare,
        tuple(_STUFF_FOLDERS),
        "COCO+LVIS, 1,284 classes, semantic",
        {
            "essnet_compat": "give blanket the label of desk-stuff, and cabinet that of "
            "window-other, as the published script does by mistake"
        },
    )
}
