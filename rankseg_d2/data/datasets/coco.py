"""COCO 2017: panoptic segmentation with 133 classes (and its semantic label maps), instances."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats.coco_instances import instance_metadata, load_instances
from ..formats.coco_panoptic import check_pngs, contiguous_id, load_panoptic, read_segments
from ..formats.file_lists import find
from ..formats.label_images import positions_of_ids, read_segment_ids
from ..prepare.job import Job, Preparation, make_files
from . import common
from .common import Command

SPLITS = ("train", "val")
IGNORE = 255


def register(root: Path) -> None:
    """`coco_2017_{train,val}` and `coco_2017_{train,val}_panoptic[_with_sem_seg]`."""
    folder = root / "coco"
    for split in SPLITS:
        common_facts = {
            "image_root": folder / f"{split}2017",
            "json_file": folder / "annotations" / f"instances_{split}2017.json",
        }
        common.register_dataset(
            f"coco_2017_{split}",
            functools.partial(load_instance_masks, root, split),
            lambda: instance_metadata(load_classes("coco_panoptic_133")),
            evaluator_type="coco",
            **common_facts,
        )
        panoptic = {
            "panoptic_root": folder / f"panoptic_{split}2017",
            "panoptic_json": folder / "annotations" / f"panoptic_{split}2017.json",
            "evaluator_type": "coco_panoptic_seg",
            "ignore_label": IGNORE,
            "label_divisor": 1000,
            **common_facts,
        }
        name = f"coco_2017_{split}_panoptic"
        load = functools.partial(load_segments, root, split)
        common.register_dataset(
            name, functools.partial(load, False), _read_panoptic_metadata, **panoptic
        )
        common.register_dataset(
            f"{name}_with_sem_seg",
            functools.partial(load, True),
            _read_panoptic_metadata,
            sem_seg_root=folder / f"panoptic_semseg_{split}2017",
            **panoptic,
        )


def _read_panoptic_metadata() -> dict:
    return common.panoptic_metadata(load_classes("coco_panoptic_133"))


def load_instance_masks(root: Path, split: str) -> list[dict]:
    return load_instances(
        root / f"coco/annotations/instances_{split}2017.json",
        root / f"coco/{split}2017",
        instance_metadata(load_classes("coco_panoptic_133")),
    )


def load_segments(root: Path, split: str, with_semantic: bool) -> list[dict]:
    labels = None
    if with_semantic:
        preparation(root, split).require()
        labels = find(root, f"coco/panoptic_semseg_{split}2017/*.png")
    return load_panoptic(
        root / f"coco/annotations/panoptic_{split}2017.json",
        root / f"coco/panoptic_{split}2017",
        find(root, f"coco/{split}2017/*.jpg"),
        labels,
        _read_panoptic_metadata(),
    )


def prepare(root: Path, split: str, workers: int) -> None:
    """Panoptic PNG files and their json -> semantic label maps (0..132, 255: ignore)."""
    raw, folder = (root / f"coco/{kind}_{split}2017" for kind in ("panoptic", "panoptic_semseg"))
    json_file = root / f"coco/annotations/panoptic_{split}2017.json"
    with preparation(root, split).making() as not_before:
        annotations = read_segments(json_file, raw)["annotations"]
        check_pngs(json_file, raw, [annotation["file_name"] for annotation in annotations])
        classes = load_classes("coco_panoptic_133")
        known = common.semantic_metadata(classes)["stuff_dataset_id_to_contiguous_id"]
        jobs = []
        for annotation in annotations:
            name, segments = annotation["file_name"], annotation["segments_info"]
            class_of = {
                x["id"]: contiguous_id(x["category_id"], known, json_file) for x in segments
            }
            jobs.append(Job(folder / name, (raw / name, json_file), (class_of,)))
        make_files(convert, jobs, f"coco-panoptic {split}", workers, not_before)


def convert(job: Job) -> None:
    """Write the class of every segment, crowds included."""
    (png, json_file), (class_of,) = job.sources, job.args
    ids = read_segment_ids(str(png))
    numbers = positions_of_ids(ids, list(class_of))  # (H, W), from 1
    unknown = ids[(numbers == 0) & (ids > 0)]
    if len(unknown):
        raise ValueError(
            f"{png} has a segment {unknown[0]}, which {json_file} does not list; unpack the "
            "archive again"
        )
    write_image(job.target, np.array([IGNORE, *class_of.values()], np.uint8)[numbers])


def preparation(root: Path, split: str) -> Preparation:
    return Preparation(
        "coco-panoptic",
        root,
        f"coco/prepared_panoptic_semseg_{split}2017.json",
        outputs=(f"coco/panoptic_semseg_{split}2017/*.png",),
        sources=(
            f"coco/annotations/panoptic_{split}2017.json",
            f"coco/panoptic_{split}2017/*.png",
        ),
    )


COMMANDS = {
    "coco-panoptic": Command(prepare, SPLITS, "COCO panoptic: its semantic label maps, 133 classes")
}
