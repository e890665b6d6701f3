"""What the data sets of persons share: metadata with flip pairs, and folders of their archives."""

from collections.abc import Sequence
from pathlib import Path

from ..classes import load_classes, load_flip_pairs
from . import common

PERSON = "person"  # the class of whole persons, after all parts


def part_metadata(class_list: str) -> dict:
    """The metadata of part maps: the parts, with background, and the pairs that a flip swaps."""
    classes = load_classes(class_list)
    return common.semantic_metadata(classes) | {"flip_pairs": load_flip_pairs(class_list)}


def parsing_metadata(class_list: str) -> dict:
    """The same, and one class more: a whole person, the only thing."""
    metadata = part_metadata(class_list)
    parts = metadata["stuff_classes"]
    number = len(parts)
    ids = metadata["stuff_dataset_id_to_contiguous_id"] | {number: number}
    return metadata | {
        "stuff_classes": [*parts, PERSON],
        "stuff_colors": [*metadata["stuff_colors"], [255, 255, 255]],
        "stuff_dataset_id_to_contiguous_id": ids,
        "thing_classes": [PERSON],
        "thing_colors": [[255, 255, 255]],
        "thing_dataset_id_to_contiguous_id": {number: number},
        "part_classes": parts[1:],
    }


def existing(root: Path, folders: Sequence[str]) -> str:
    """The first of the folders below `root` that exists; archives may nest a folder twice."""
    for folder in folders:
        if (root / folder).is_dir():
            return folder
    raise FileNotFoundError(
        f"{root / folders[-1]} does not exist; download the data set (datasets/README.md says "
        "where) into that folder, or set DETECTRON2_DATASETS to the folder of the data sets"
    )
