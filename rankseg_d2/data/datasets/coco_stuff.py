"""COCO-Stuff with 171 classes: 10k (both releases) and 164k."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats.file_lists import check_pairs, find, read_names
from ..formats.label_images import read_values
from ..formats.matlab import is_hdf5, read_matlab
from ..prepare.job import UNKNOWN, Job, Preparation, make_files, map_values
from . import common
from .common import Command

_SPLITS_10K = ("train", "test")
_SPLITS_164K = ("train", "val")
_FOLDER_10K = "coco/coco_stuff_10k"
IGNORE = 255


def register(root: Path) -> None:
    """`coco_2017_{train,test}_stuff_10k_sem_seg` and `coco_2017_{train,val}_stuff_164k_sem_seg`."""
    metadata = {"evaluator_type": "sem_seg", "ignore_label": IGNORE}
    for split in _SPLITS_10K:
        common.register_dataset(
            f"coco_2017_{split}_stuff_10k_sem_seg",
            functools.partial(_load_10k, root, split),
            _read_metadata,
            image_root=root / _FOLDER_10K / "images",
            sem_seg_root=root / _FOLDER_10K / "annotations_detectron2" / split,
            **metadata,
        )
    for split in _SPLITS_164K:
        common.register_dataset(
            f"coco_2017_{split}_stuff_164k_sem_seg",
            functools.partial(_load_164k, root, split),
            _read_metadata,
            image_root=root / f"coco/{split}2017",
            sem_seg_root=root / f"coco/stuffthingmaps_detectron2/{split}2017",
            **metadata,
        )


def _read_metadata() -> dict:
    return common.semantic_metadata(load_classes("coco_stuff_171"))


def _load_10k(root: Path, split: str) -> list[dict]:
    _preparation_10k(root, split).require()
    return common.semantic_records(
        find(root, f"{_FOLDER_10K}/images/*.jpg"),
        find(root, f"{_FOLDER_10K}/annotations_detectron2/{split}/*.png"),
        f"coco_2017_{split}_stuff_10k_sem_seg",
        read_names(root / _FOLDER_10K / "imageLists" / f"{split}.txt"),
    )


def _load_164k(root: Path, split: str) -> list[dict]:
    _preparation_164k(root, split).require()
    return common.semantic_records(
        find(root, f"coco/{split}2017/*.jpg"),
        find(root, f"coco/stuffthingmaps_detectron2/{split}2017/*.png"),
        f"coco_2017_{split}_stuff_164k_sem_seg",
    )


def _prepare_10k(root: Path, split: str, workers: int) -> None:
    """MATLAB files of release 1.0 or 1.1 -> label maps (0..170, 255: ignore)."""
    folder = root / _FOLDER_10K
    with _preparation_10k(root, split).making() as not_before:
        names = read_names(folder / "imageLists" / f"{split}.txt")
        images = find(root, f"{_FOLDER_10K}/images/*.jpg")
        labels = find(root, f"{_FOLDER_10K}/annotations/*.mat")
        check_pairs(names, images, labels, str(folder / "imageLists" / f"{split}.txt"))
        target = folder / "annotations_detectron2" / split
        jobs = [Job(target / f"{name}.png", (labels[name],)) for name in names]
        make_files(_convert_10k, jobs, f"coco-stuff-10k {split}", workers, not_before)


def _prepare_164k(root: Path, split: str, workers: int) -> None:
    """stuffthingmaps (0..181, 255: ignore) -> label maps (0..170, 255: ignore)."""
    with _preparation_164k(root, split).making() as not_before:
        labels = find(root, f"coco/stuffthingmaps/{split}2017/*.png")
        target = root / f"coco/stuffthingmaps_detectron2/{split}2017"
        jobs = [Job(target / path.name, (path,)) for path in labels.values()]
        make_files(_convert_164k, jobs, f"coco-stuff-164k {split}", workers, not_before)


def _convert_10k(job: Job) -> None:
    """Write the label map; the file format shows the release: HDF5 is 1.0, older MATLAB 1.1."""
    (source,) = job.sources
    is_first_release = is_hdf5(source)
    key, allowed = ("value_10k_v10", "1 to 172") if is_first_release else ("id", "0 to 182")
    classes = load_classes("coco_stuff_171")
    table = np.full(173 if is_first_release else 183, IGNORE, np.int32)
    table[0] = UNKNOWN if is_first_release else IGNORE
    table[[entry[key] for entry in classes]] = np.arange(len(classes))
    labels = map_values(read_matlab(source, "S"), table, source, allowed)
    write_image(job.target, labels.astype(np.uint8))


def _convert_164k(job: Job) -> None:
    (source,) = job.sources
    table = np.full(256, IGNORE, np.uint8)
    classes = load_classes("coco_stuff_171")
    table[[entry["pixel_164k"] for entry in classes]] = np.arange(len(classes))
    write_image(job.target, table[read_values(str(source))])


def _preparation_10k(root: Path, split: str) -> Preparation:
    return Preparation(
        "coco-stuff-10k",
        root,
        f"{_FOLDER_10K}/prepared_{split}.json",
        outputs=(f"{_FOLDER_10K}/annotations_detectron2/{split}/*.png",),
        sources=(f"{_FOLDER_10K}/imageLists/{split}.txt", f"{_FOLDER_10K}/annotations/*.mat"),
    )


def _preparation_164k(root: Path, split: str) -> Preparation:
    return Preparation(
        "coco-stuff-164k",
        root,
        f"coco/prepared_stuffthingmaps_{split}2017.json",
        outputs=(f"coco/stuffthingmaps_detectron2/{split}2017/*.png",),
        sources=(f"coco/stuffthingmaps/{split}2017/*.png",),
    )


COMMANDS = {
    "coco-stuff-10k": Command(
        _prepare_10k, _SPLITS_10K, "COCO-Stuff 10k, release 1.0 or 1.1, 171 classes, semantic"
    ),
    "coco-stuff-164k": Command(
        _prepare_164k, _SPLITS_164K, "COCO-Stuff 164k, 171 classes, semantic"
    ),
}
