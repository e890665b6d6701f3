"""CamVid with 11 classes, in SegNet's grouping of the 32 published ones: semantic segmentation."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats.file_lists import check_pairs, find
from ..formats.image_files import read_labels
from ..formats.label_images import read_values
from ..prepare.job import Job, Preparation, make_files, map_values
from . import common
from .common import Command

FOLDER = "CamVid"
SPLITS = ("train", "val", "test")
IGNORE = 255
_SEGNET_VOID = 11  # in SegNet's label images
_COLORED = "_L.png"  # ending of the published label images; some are saved with a palette


def register(root: Path) -> None:
    """`camvid_sem_seg_{train,val,test}`."""
    for split in SPLITS:
        common.register_dataset(
            f"camvid_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            lambda: common.semantic_metadata(load_classes("camvid_11")),
            image_root=root / FOLDER / split,
            sem_seg_root=root / FOLDER / "annotations_detectron2" / split,
            evaluator_type="sem_seg",
            ignore_label=IGNORE,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    preparation(root, split).require()
    return common.semantic_records(
        find(root, f"{FOLDER}/{split}/*.png"),
        find(root, f"{FOLDER}/annotations_detectron2/{split}/*.png"),
        f"camvid_sem_seg_{split}",
    )


def prepare(root: Path, split: str, workers: int) -> None:
    """Colours of the 32 classes, or SegNet's values, -> label maps (0..10, 255: ignore)."""
    with preparation(root, split).making() as not_before:
        labels = find(root, _source(root, split))
        images = find(root, f"{FOLDER}/{split}/*.png")
        names = sorted(images.keys() | labels.keys())
        check_pairs(names, images, labels, str(root / FOLDER / split))
        target = root / FOLDER / "annotations_detectron2" / split
        jobs = [Job(target / f"{name}.png", (labels[name],)) for name in names]
        make_files(convert, jobs, f"camvid {split}", workers, not_before)


def convert(job: Job) -> None:
    """Write the label map; the void colour and colours of no class become IGNORE."""
    (source,) = job.sources
    image = read_labels(str(source), "label image")
    is_colored = source.name.endswith(_COLORED) or image.mode in ("RGB", "RGBA")
    if not is_colored:
        table = np.append(np.arange(_SEGNET_VOID), IGNORE)
        values = read_values(str(source))
        allowed = f"0 to {_SEGNET_VOID} (ignored)"
        labels = map_values(values, table, source, allowed)
    else:
        labels = _class_of_color()[_codes(np.asarray(image.convert("RGB")))]
        if (labels == IGNORE).all():
            raise ValueError(
                f"{source} has no pixel in a colour of CamVid's classes; use the label images of "
                "the data set's own page, or SegNet's"
            )
    write_image(job.target, labels.astype(np.uint8))


@functools.cache
def _class_of_color() -> np.ndarray:
    """Code of a colour -> class, or IGNORE: (2**24,) uint8."""
    table = np.full(2**24, IGNORE, np.uint8)
    for entry in load_classes("camvid_11"):
        for member in entry["raw_members"]:
            table[_codes(np.array(member["color"]))] = entry["train_id"]
    return table


def _codes(colors: np.ndarray) -> np.ndarray:
    """A number for each colour: (..., 3) -> (...)."""
    return colors.astype(np.int32) @ np.array([65536, 256, 1], np.int32)


def _source(root: Path, split: str) -> str:
    """The pattern of SegNet's label images, if they are present, else of the coloured ones."""
    segnet = f"{FOLDER}/{split}annot"
    return f"{segnet}/*.png" if (root / segnet).is_dir() else f"{FOLDER}/{split}_labels/*{_COLORED}"


def preparation(root: Path, split: str) -> Preparation:
    return Preparation(
        "camvid",
        root,
        f"{FOLDER}/prepared_{split}.json",
        outputs=(f"{FOLDER}/annotations_detectron2/{split}/*.png",),
        sources=(_source(root, split),),
    )


COMMANDS = {"camvid": Command(prepare, SPLITS, "CamVid, 11 classes, semantic")}
