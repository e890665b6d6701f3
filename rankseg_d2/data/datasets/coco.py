"""COCO 2017: panoptic segmentation, 133 classes (and semantic label maps), instances, entities."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats.coco_instances import instance_metadata, load_instances
from ..formats.coco_panoptic import check_pngs, contiguous_id, load_panoptic, read_segments
from ..formats.entities import CATEGORY, entity_annotations
from ..formats.file_lists import find
from ..formats.label_images import positions_of_ids, read_segment_ids
from ..prepare.job import Job, Preparation, make_files, make_json
from . import common
from .common import Command
from .entities import entity_metadata, entity_records

SPLITS = ("train", "val")
IGNORE = 255


def register(root: Path) -> None:
    """`coco_2017_{train,val}`, and these with `_panoptic`, `_panoptic_with_sem_seg`, `_entity`."""
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
        common.register_dataset(
            f"coco_2017_{split}_entity",
            functools.partial(load_entities, root, split),
            image_root=folder / f"{split}2017",
            json_file=folder / "annotations" / f"entity_{split}2017.json",
            **entity_metadata(),
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


def load_entities(root: Path, split: str) -> list[dict]:
    """The entities of panoptic PNG files; of val, the json of the evaluation must be prepared."""
    if split == "val":
        entity_preparation(root, split).require()
    return entity_records(load_segments(root, split, with_semantic=False))


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


def prepare_entities(root: Path, split: str, workers: int, box_area: bool = False) -> None:
    """Panoptic PNG files and their json -> a COCO json with one category, for evaluations."""
    raw = root / f"coco/panoptic_{split}2017"
    json_file = root / f"coco/annotations/panoptic_{split}2017.json"
    to_prepare = entity_preparation(root, split)
    to_prepare.check_sources()
    content = read_segments(json_file, raw)
    check_pngs(json_file, raw, [annotation["file_name"] for annotation in content["annotations"]])
    facts = {image["id"]: image for image in content["images"]}
    jobs = []
    for annotation in content["annotations"]:
        image_id = annotation["image_id"]
        image = {"id": image_id, "file_name": f"{Path(annotation['file_name']).stem}.jpg"}
        image |= {key: facts[image_id][key] for key in ("height", "width") if image_id in facts}
        args = (image, annotation["segments_info"], box_area)
        jobs.append(Job(None, (raw / annotation["file_name"], json_file), args))
    target = root / f"coco/annotations/entity_{split}2017.json"
    make_json(to_prepare, convert_entities, jobs, target, [CATEGORY], workers, box_area=box_area)


def convert_entities(job: Job) -> dict:
    """The image and its entities, for the json."""
    (png, json_file), (image, segments, box_area) = job.sources, job.args
    annotations, (height, width) = entity_annotations(str(png), segments, image["id"], box_area)
    if (image.get("height", height), image.get("width", width)) != (height, width):
        raise ValueError(
            f"{png} is {width} x {height} (width x height), but {json_file} says "
            f"{image['width']} x {image['height']}; unpack the archive again"
        )
    return {"image": image | {"height": height, "width": width}, "annotations": annotations}


def entity_preparation(root: Path, split: str) -> Preparation:
    return Preparation(
        "coco-entity",
        root,
        f"coco/prepared_entity_{split}2017.json",
        outputs=(f"coco/annotations/entity_{split}2017.json",),
        sources=(
            f"coco/annotations/panoptic_{split}2017.json",
            f"coco/panoptic_{split}2017/*.png",
        ),
    )


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
    "coco-panoptic": Command(
        prepare, SPLITS, "COCO panoptic: its semantic label maps, 133 classes"
    ),
    "coco-entity": Command(
        prepare_entities,
        SPLITS,
        "COCO panoptic: the json of its entities, which the evaluation of val reads",
        {
            "box_area": "boxes and areas as in the published json, whose area is that of the box: "
            "by it APs, APm and APl count an entity as small, medium or large"
        },
    ),
}
