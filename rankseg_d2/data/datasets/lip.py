"""LIP (Look into Person), 20 classes: part maps of single persons."""

import functools
from pathlib import Path

from ..formats.file_lists import find, read_stems
from . import common
from .persons import existing, part_metadata

FOLDER = "LIP"
SPLITS = ("train", "val")
IMAGES, LABELS = "TrainVal_images", "TrainVal_parsing_annotations"
TEST = "Testing_images"


def register(root: Path) -> None:
    """`lip_sem_seg_{train,val,test}`; the labels of test are not public."""
    for split in (*SPLITS, "test"):
        common.register_dataset(
            f"lip_sem_seg_{split}",
            functools.partial(load_test if split == "test" else load_semantic, root, split),
            functools.partial(part_metadata, "lip_20"),
            evaluator_type="sem_seg",
            ignore_label=255,
            has_labels=split != "test",
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


def load_test(root: Path, split: str) -> list[dict]:
    """The images of the test archive, or of its list where that exists."""
    folder = existing(root, folders_of_test())
    paths = root / folder / f"{split}_id.txt", (root / folder).parent / f"{split}_id.txt"
    list_file = next((path for path in paths if path.is_file()), paths[0])
    return common.image_records(find(root, f"{folder}/*.jpg"), str(root / folder), list_file)


def folders_of_test() -> list[str]:
    """Where the images of test may lie, the innermost folder first."""
    inner = f"{TEST}/testing_images"
    return [*_places(inner), f"{FOLDER}/{TEST}/{TEST}", f"{FOLDER}/{TEST}"]


def _places(path: str) -> list[str]:
    """Where a path of an archive may lie: the archives may nest their folder twice."""
    archive = path.partition("/")[0]
    return [f"{FOLDER}/{archive}/{path}", f"{FOLDER}/{path}"]


COMMANDS = {}  # the label images are used as they are
