"""ADE20K-Full: the 847 classes that are in both splits of ADE20K_2021_17_01."""

import functools
import logging
from pathlib import Path

import numpy as np

from ...files import remove_leftovers, write_image
from ..classes import load_classes
from ..formats.file_lists import check_pairs, find
from ..formats.image_files import read_labels, read_rgb
from ..prepare.job import Job, Preparation, make_files
from . import common
from .common import Command

FOLDER = "ADE20K_2021_17_01"
SPLITS = {"train": "training", "val": "validation"}
NUM_IMAGES = {"train": 25_574, "val": 2_000}
IGNORE = 65535
_SHORT_SIDE = 512
JPEG_QUALITY = 95  # Pillow's default of 75 gives visible artefacts

logger = logging.getLogger(__name__)


def register(root: Path) -> None:
    """`ade20k_full_sem_seg_{train,val}`."""
    for split, raw_split in SPLITS.items():
        common.register_dataset(
            f"ade20k_full_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            lambda: common.semantic_metadata(load_classes("ade20k_full_847")),
            image_root=root / FOLDER / "images_detectron2" / raw_split,
            sem_seg_root=root / FOLDER / "annotations_detectron2" / raw_split,
            evaluator_type="sem_seg",
            ignore_label=IGNORE,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    preparation(root, split).require()
    images = find(root, f"{FOLDER}/images_detectron2/{SPLITS[split]}/*.jpg")
    labels = find(root, f"{FOLDER}/annotations_detectron2/{SPLITS[split]}/*.tif")
    return common.semantic_records(images, labels, f"ade20k_full_sem_seg_{split}")


def prepare(root: Path, split: str, workers: int) -> None:
    """Write images and 16-bit label maps (0..846, 65535: ignore), shorter side at most 512."""
    folder = root / FOLDER
    with preparation(root, split).making() as not_before:
        labels = find(root, f"{_raw_folder(split)}/*_seg.png")
        if len(labels) != NUM_IMAGES[split]:
            text = "%s has %d label maps, but %d are published; check that the download is complete"
            logger.warning(text, root / _raw_folder(split), len(labels), NUM_IMAGES[split])
        images = {name: path.with_name(f"{name}.jpg") for name, path in labels.items()}
        found = {name: path for name, path in images.items() if path.is_file()}
        check_pairs(list(labels), found, labels, str(root / _raw_folder(split)))
        target = folder / "annotations_detectron2" / SPLITS[split]
        image_target = folder / "images_detectron2" / SPLITS[split]
        remove_leftovers([image_target])
        jobs = [
            Job(target / f"{name}.tif", (path, images[name]), (image_target / f"{name}.jpg",))
            for name, path in labels.items()
        ]
        make_files(convert, jobs, f"ade20k-full {split}", workers, not_before)


def convert(job: Job) -> None:
    """Decode red and green to object numbers, map these to classes, and resize both files."""
    import cv2

    (label_file, image_file), (image_target,) = job.sources, job.args
    image = read_rgb(str(image_file))
    colors = read_labels(str(label_file), "label map").convert("RGB")
    colors = np.asarray(colors, np.int32)  # (H, W, 3)
    if image.shape != colors.shape:
        raise ValueError(
            f"{image_file} has the size {image.shape[:2]} (height, width), but its label map "
            f"{label_file.name} has {colors.shape[:2]}; download both again"
        )
    objects = colors[..., 0] // 10 * 256 + colors[..., 1]  # (H, W), 0 is none
    labels = _class_of_object()[objects]
    height, width = labels.shape
    if min(height, width) > _SHORT_SIDE:
        longer = round(max(height, width) / min(height, width) * _SHORT_SIDE)
        size = (_SHORT_SIDE, longer) if width <= height else (longer, _SHORT_SIDE)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    write_image(image_target, image, quality=JPEG_QUALITY)
    write_image(job.target, labels)


@functools.cache
def _class_of_object() -> np.ndarray:
    """Object number -> class, or IGNORE: uint16."""
    table = np.full(26 * 256, IGNORE, np.uint16)
    for entry in load_classes("ade20k_full_847"):
        table[entry["id"]] = entry["train_id"]
    return table


def _raw_folder(split: str) -> str:
    return f"{FOLDER}/images/ADE/{SPLITS[split]}/*/*"  # a scene and its kind


def preparation(root: Path, split: str) -> Preparation:
    made = ("images_detectron2/{}/*.jpg", "annotations_detectron2/{}/*.tif")
    return Preparation(
        "ade20k-full",
        root,
        f"{FOLDER}/prepared_{split}.json",
        outputs=tuple(f"{FOLDER}/{output.format(SPLITS[split])}" for output in made),
        sources=(f"{_raw_folder(split)}/*_seg.png",),
    )


COMMANDS = {"ade20k-full": Command(prepare, tuple(SPLITS), "ADE20K-Full, 847 classes, semantic")}
