"""Cityscapes with 19 classes: semantic and panoptic segmentation of the fine annotations."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats.coco_panoptic import ids_to_colors, load_panoptic, regions
from ..formats.file_lists import check_pairs, find
from ..formats.label_images import positions_of_ids, read_values
from ..prepare.job import Job, Preparation, make_files, make_json
from . import common
from .common import Command

SPLITS = ("train", "val")
IGNORE = 255
_FIRST_INSTANCE = 1000  # a value of an instance map is an id of a class, or 1000 * id + instance
IMAGES, LABELS = "_leftImg8bit", "_gtFine"


def register(root: Path) -> None:
    """`cityscapes_fine_{sem_seg,panoptic}_{train,val}`."""
    folder = root / "cityscapes"
    for split in SPLITS:
        images, labels = folder / "leftImg8bit" / split, folder / "gtFine" / split
        metadata = {"image_root": images, "sem_seg_root": labels, "gt_dir": labels}
        common.register_dataset(
            f"cityscapes_fine_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            _read_metadata,
            evaluator_type="cityscapes_sem_seg",
            image_dir=images,
            ignore_label=IGNORE,
            **metadata,
        )
        common.register_dataset(
            f"cityscapes_fine_panoptic_{split}",
            functools.partial(load_segments, root, split),
            _read_metadata,
            evaluator_type="cityscapes_panoptic_seg",
            panoptic_root=folder / "gtFine" / f"cityscapes_panoptic_{split}",
            panoptic_json=folder / "gtFine" / f"cityscapes_panoptic_{split}.json",
            label_divisor=1000,
            ignore_label=IGNORE,
            **metadata,
        )


def _read_metadata() -> dict:
    return common.panoptic_metadata(load_classes("cityscapes_19"))


def load_semantic(root: Path, split: str) -> list[dict]:
    semantic_preparation(root, split).require()
    labels = _find_labels(root, split, "labelTrainIds")
    return common.semantic_records(
        find_images(root, split), labels, f"cityscapes_fine_sem_seg_{split}"
    )


def load_segments(root: Path, split: str) -> list[dict]:
    semantic_preparation(root, split).require()
    panoptic_preparation(root, split).require()
    folder = root / f"cityscapes/gtFine/cityscapes_panoptic_{split}"
    return load_panoptic(
        folder.with_suffix(".json"),
        folder,
        find_images(root, split),
        _find_labels(root, split, "labelTrainIds"),
        _read_metadata(),
        ending=f"{LABELS}_panoptic",
    )


def prepare(root: Path, split: str, workers: int) -> None:
    """labelIds -> labelTrainIds, instanceIds -> COCO's panoptic format; keeps existing files."""
    with semantic_preparation(root, split).making() as not_before:
        jobs = [
            Job(path.with_name(f"{name}{LABELS}_labelTrainIds.png"), (path,))
            for name, path in find_raw(root, split, "labelIds").items()
        ]
        make_files(convert_labels, jobs, f"cityscapes {split}", workers, not_before)
    preparation = panoptic_preparation(root, split)
    preparation.check_sources()
    folder = root / f"cityscapes/gtFine/cityscapes_panoptic_{split}"
    jobs = [
        Job(folder / f"{name}{LABELS}_panoptic.png", (path,))
        for name, path in find_raw(root, split, "instanceIds").items()
    ]
    classes, json_file = load_classes("cityscapes_19"), folder.with_suffix(".json")
    make_json(preparation, _convert_segments, jobs, json_file, classes, workers)


def convert_labels(job: Job) -> None:
    (source,) = job.sources
    table = np.full(256, IGNORE, np.uint8)
    for entry in load_classes("cityscapes_19"):
        table[entry["id"]] = entry["train_id"]
    write_image(job.target, table[read_values(str(source))])


def _convert_segments(job: Job) -> dict:
    """The image and its annotation; a thing without an instance number is a group: a crowd."""
    (source,) = job.sources
    values = read_values(str(source)).astype(np.int32)  # (H, W)
    isthing = {entry["id"]: bool(entry["isthing"]) for entry in load_classes("cityscapes_19")}
    segments = []
    for value, measured in regions(values).items():
        is_instance = value >= _FIRST_INSTANCE
        category = value // _FIRST_INSTANCE if is_instance else value
        if category in isthing:
            is_crowd = int(isthing[category] and not is_instance)
            segments.append({"id": value, "category_id": category, "iscrowd": is_crowd} | measured)
    is_kept = positions_of_ids(values, [segment["id"] for segment in segments]) > 0
    write_image(job.target, ids_to_colors(np.where(is_kept, values, 0)))
    name = source.name.removesuffix(f"{LABELS}_instanceIds.png")
    height, width = values.shape
    image = {"id": name, "file_name": f"{name}{LABELS}{IMAGES}.png"}
    annotation = {"image_id": name, "file_name": job.target.name, "segments_info": segments}
    return {"image": image | {"height": height, "width": width}, "annotations": [annotation]}


def find_images(root: Path, split: str) -> dict[str, Path]:
    return find(root, f"cityscapes/leftImg8bit/{split}/*/*{IMAGES}.png")


def _find_labels(root: Path, split: str, kind: str) -> dict[str, Path]:
    return find(root, f"cityscapes/gtFine/{split}/*/*{LABELS}_{kind}.png")


def find_raw(root: Path, split: str, kind: str) -> dict[str, Path]:
    """The published label or instance map of each image."""
    images, labels = find_images(root, split), _find_labels(root, split, kind)
    names = sorted(images.keys() | labels.keys())
    check_pairs(names, images, labels, str(root / "cityscapes/gtFine" / split))
    return labels


def semantic_preparation(root: Path, split: str) -> Preparation:
    maps = f"cityscapes/gtFine/{split}/*/*{LABELS}"
    return Preparation(
        "cityscapes",
        root,
        f"cityscapes/prepared_semantic_{split}.json",
        outputs=(f"{maps}_labelTrainIds.png",),
        sources=(f"{maps}_labelIds.png",),
    )


def panoptic_preparation(root: Path, split: str) -> Preparation:
    made = f"cityscapes/gtFine/cityscapes_panoptic_{split}"
    return Preparation(
        "cityscapes",
        root,
        f"cityscapes/prepared_panoptic_{split}.json",
        outputs=(f"{made}.json", f"{made}/*.png"),
        sources=(f"cityscapes/gtFine/{split}/*/*{LABELS}_instanceIds.png",),
    )


COMMANDS = {"cityscapes": Command(prepare, SPLITS, "Cityscapes, 19 classes, semantic and panoptic")}
