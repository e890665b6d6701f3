"""CIHP (Crowd Instance-level Human Parsing), 20 classes: part maps, and each person's parts."""

import functools
from pathlib import Path

from ..formats.file_lists import check_pairs, find, read_stems
from ..formats.person_labels import PersonLabels
from . import common
from .persons import existing, parsing_metadata, part_metadata

FOLDER = "instance-level_human_parsing"
SPLITS = {"train": "Training", "val": "Validation", "test": "Testing"}
NUM_PARTS = 20  # with background


def register(root: Path) -> None:
    """`cihp_{sem_seg,parsing}_{train,val,test}`; the labels of test are not public."""
    for split in SPLITS:
        has_labels = split != "test"
        common.register_dataset(
            f"cihp_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            functools.partial(part_metadata, "cihp_20"),
            evaluator_type="sem_seg",
            ignore_label=255,
            has_labels=has_labels,
        )
        common.register_dataset(
            f"cihp_parsing_{split}",
            functools.partial(load_persons, root, split),
            functools.partial(parsing_metadata, "cihp_20"),
            evaluator_type="human_parsing",
            ignore_label=255,
            has_labels=has_labels,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    """The records of a split's list or, without a list, of all of its files."""
    folder = _folder(root, split)
    images, path = find(root, f"{folder}/Images/*.jpg"), root / folder / f"{split}_id.txt"
    if split == "test":
        return common.image_records(images, str(root / folder / "Images"), path)
    labels = _labels(root, folder, "Category_ids")
    names = read_stems(path) if path.is_file() else None
    return common.semantic_records(images, labels, str(root / folder), names)


def load_persons(root: Path, split: str) -> list[dict]:
    """The same, with the persons of each image."""
    records, folder = load_semantic(root, split), _folder(root, split)
    if split == "test":
        return records
    numbers = _labels(root, folder, "Human_ids")
    names = [record["image_id"] for record in records]
    check_pairs(names, dict.fromkeys(names), numbers, str(root / folder / "Human_ids"))
    for record in records:
        files = (record["sem_seg_file_name"],)
        number_file = str(numbers[record["image_id"]])
        record["person_labels"] = PersonLabels(files, NUM_PARTS, number_file)
    return records


def _labels(root: Path, folder: str, kind: str) -> dict[str, Path]:
    return find(root, f"{existing(root, [f'{folder}/{kind}'])}/*.png")


def _folder(root: Path, split: str) -> str:
    return existing(root, places(SPLITS[split]))


def places(path: str) -> list[str]:
    """Where a path of the archive may lie: in a folder CIHP or not, nested once or twice."""
    once = f"{FOLDER}/{path}"
    return [f"CIHP/{FOLDER}/{once}", f"CIHP/{once}", f"{FOLDER}/{once}", once]


COMMANDS = {}  # the label images are used as they are
