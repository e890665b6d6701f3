"""ADE20K with 150 classes (SceneParse150): semantic, panoptic and instance segmentation."""

import functools
from pathlib import Path

from ..classes import load_classes
from ..formats.coco_instances import instance_metadata, load_instances
from ..formats.coco_panoptic import load_panoptic
from ..formats.file_lists import check_pairs, find
from ..prepare.ade20k import IGNORE, convert_instances, convert_labels, convert_panoptic
from ..prepare.job import Job, Preparation, make_files, make_json
from . import common
from .common import Command

FOLDER = "ADEChallengeData2016"
SPLITS = {"train": "training", "val": "validation"}


def register(root: Path) -> None:
    """`ade20k_{sem_seg,panoptic,instance}_{train,val}`."""
    folder = root / FOLDER
    for split, raw_split in SPLITS.items():
        image_root = folder / "images" / raw_split
        semantic = {
            "image_root": image_root,
            "sem_seg_root": folder / "annotations_detectron2" / raw_split,
            "ignore_label": IGNORE,
        }
        common.register_dataset(
            f"ade20k_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            lambda: common.semantic_metadata(load_classes("ade20k_150")),
            evaluator_type="sem_seg",
            **semantic,
        )
        common.register_dataset(
            f"ade20k_panoptic_{split}",
            functools.partial(load_segments, root, split),
            lambda: common.panoptic_metadata(load_classes("ade20k_panoptic_150")),
            evaluator_type="ade20k_panoptic_seg",
            panoptic_root=folder / f"ade20k_panoptic_{split}",
            panoptic_json=folder / f"ade20k_panoptic_{split}.json",
            json_file=folder / f"ade20k_instance_{split}.json",
            label_divisor=1000,
            **semantic,
        )
        common.register_dataset(
            f"ade20k_instance_{split}",
            functools.partial(load_instance_masks, root, split),
            lambda: instance_metadata(load_classes("ade20k_panoptic_150")),
            evaluator_type="coco",
            json_file=folder / f"ade20k_instance_{split}.json",
            image_root=image_root,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    semantic_preparation(root, split).require()
    images, labels = find_images(root, split), _find_prepared(root, split)
    return common.semantic_records(images, labels, f"ade20k_sem_seg_{split}")


def load_segments(root: Path, split: str) -> list[dict]:
    semantic_preparation(root, split).require()
    panoptic_preparation(root, split).require()
    return load_panoptic(
        root / FOLDER / f"ade20k_panoptic_{split}.json",
        root / FOLDER / f"ade20k_panoptic_{split}",
        find_images(root, split),
        _find_prepared(root, split),
        common.panoptic_metadata(load_classes("ade20k_panoptic_150")),
    )


def load_instance_masks(root: Path, split: str) -> list[dict]:
    _instance_preparation(root, split).require()
    return load_instances(
        root / FOLDER / f"ade20k_instance_{split}.json",
        root / FOLDER / "images" / SPLITS[split],
        instance_metadata(load_classes("ade20k_panoptic_150")),
    )


def _prepare_semantic(root: Path, split: str, workers: int) -> None:
    """annotations/*.png (0: ignore) -> annotations_detectron2/*.png (0..149, 255: ignore)."""
    folder = root / FOLDER / "annotations_detectron2" / SPLITS[split]
    with semantic_preparation(root, split).making() as not_before:
        labels = find_raw(root, split, "annotations")
        jobs = [Job(folder / path.name, (path,)) for path in labels.values()]
        make_files(convert_labels, jobs, f"ade20k {split}", workers, not_before)


def _prepare_panoptic(root: Path, split: str, workers: int, visible_area: bool = False) -> None:
    """Write all that the panoptic configs need to train and evaluate.

    These are label maps, COCO's panoptic json and PNG files, and COCO's instance json.
    """
    preparation = panoptic_preparation(root, split)
    preparation.check_sources()
    _prepare_semantic(root, split, workers)
    folder = root / FOLDER / f"ade20k_panoptic_{split}"
    instances = find_raw(root, split, "annotations_instance")
    jobs = [
        Job(folder / path.name, (path, instances[name]), (visible_area,))
        for name, path in find_raw(root, split, "annotations").items()
    ]
    json_file, options = folder.with_suffix(".json"), {"visible_area": visible_area}
    classes = load_classes("ade20k_panoptic_150")
    make_json(preparation, convert_panoptic, jobs, json_file, classes, workers, **options)
    _prepare_instances(root, split, workers)


def _prepare_instances(root: Path, split: str, workers: int) -> None:
    """annotations_instance/*.png -> COCO's instance json."""
    preparation = _instance_preparation(root, split)
    preparation.check_sources()
    paths = find_raw(root, split, "annotations_instance").values()
    jobs = [Job(None, (path,)) for path in paths]
    json_file = root / FOLDER / f"ade20k_instance_{split}.json"
    things = [entry for entry in load_classes("ade20k_panoptic_150") if entry["isthing"]]
    make_json(preparation, convert_instances, jobs, json_file, things, workers)


def find_images(root: Path, split: str) -> dict[str, Path]:
    return find(root, f"{FOLDER}/images/{SPLITS[split]}/*.jpg")


def _find_prepared(root: Path, split: str) -> dict[str, Path]:
    return find(root, f"{FOLDER}/annotations_detectron2/{SPLITS[split]}/*.png")


def find_raw(root: Path, split: str, folder: str) -> dict[str, Path]:
    """The files of `annotations` or `annotations_instance`, one for each image."""
    images, found = find_images(root, split), find(root, f"{FOLDER}/{folder}/{SPLITS[split]}/*.png")
    names = sorted(images.keys() | found.keys())
    check_pairs(names, images, found, f"{root / FOLDER / folder / SPLITS[split]}")
    return found


def semantic_preparation(root: Path, split: str) -> Preparation:
    return Preparation(
        "ade20k",
        root,
        f"{FOLDER}/prepared_semantic_{split}.json",
        outputs=(f"{FOLDER}/annotations_detectron2/{SPLITS[split]}/*.png",),
        sources=(f"{FOLDER}/annotations/{SPLITS[split]}/*.png",),
    )


def panoptic_preparation(root: Path, split: str) -> Preparation:
    made, folders = f"{FOLDER}/ade20k_panoptic_{split}", ("annotations", "annotations_instance")
    return Preparation(
        "ade20k-panoptic",
        root,
        f"{FOLDER}/prepared_panoptic_{split}.json",
        outputs=(f"{made}.json", f"{made}/*.png"),
        sources=tuple(f"{FOLDER}/{folder}/{SPLITS[split]}/*.png" for folder in folders),
    )


def _instance_preparation(root: Path, split: str) -> Preparation:
    return Preparation(
        "ade20k-instance",
        root,
        f"{FOLDER}/prepared_instance_{split}.json",
        outputs=(f"{FOLDER}/ade20k_instance_{split}.json",),
        sources=(f"{FOLDER}/annotations_instance/{SPLITS[split]}/*.png",),
    )


COMMANDS = {
    "ade20k": Command(_prepare_semantic, tuple(SPLITS), "ADE20K, 150 classes, semantic"),
    "ade20k-panoptic": Command(
        _prepare_panoptic,
        tuple(SPLITS),
        "ADE20K, 150 classes, panoptic, semantic and instances",
        {
            "visible_area": "area and box of stuff count visible pixels only, and segments that "
            "instances hide completely are left out; published scores count the hidden part"
        },
    ),
    "ade20k-instance": Command(_prepare_instances, tuple(SPLITS), "ADE20K, 100 things, instances"),
}
