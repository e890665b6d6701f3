"""LIP (Look into Person), 20 classes: part maps of single persons."""

import functools
from pathlib import Path

from ..formats.file_lists import find, read_stems
from . import common
from .persons import existing, part_metadata

FOLDER = "LIP"
SPLITS = ("train", "val")
IMAGES, LABELS = "TrainVal_images", "TrainVal_parsing_annotations"


def register(root: Path) -> None:
    """`lip_sem_seg_{train,val}`; the labels of test are not public."""
    for split in SPLITS:
        common.register_dataset(
            f"lip_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            functools.partial(part_metadata, "lip_20"),
            evaluator_type="sem_seg",
            ignore_label=255,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    """The records of a split's list or, without a list, of all of its files.

    The folder with reversed labels, which are those of mirrored images, is not used.
    """
    archives = f"{IMAGES}/{split}_images", f"{LABELS}/{split}_segmentations"
    images, labels = (existing(root, _places(folder)) for folder in archives)
    lists = [root / f"{place}.txt" for place in _places(f"{IMAGES}/{split}_id")]
    names = next((read_stems(path) for path in lists if path.is_file()), None)
    found = find(root, f"{images}/*.jpg"), find(root, f"{labels}/*.png")
    return common.semantic_records(*found, str(root / images), names)


def _places(path: str) -> list[str]:
    """Where a path of an archive may lie: the archives may nest their folder twice."""
    archive = path.partition("/")[0]
    return [f"{FOLDER}/{archive}/{path}", f"{FOLDER}/{path}"]


COMMANDS = {}  # the label images are used as they are
