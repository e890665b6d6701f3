"""ATR, 18 classes: part maps of single persons."""

import functools
import logging
from pathlib import Path

from ..formats.file_lists import check_pairs, find, read_stems
from . import common
from .persons import existing, part_metadata

FOLDERS = "ATR/humanparsing", "humanparsing"
SPLITS = ("train", "val", "test")
SIZES = {"train": 16_000, "val": 700}  # the rest is test

logger = logging.getLogger(__name__)


def register(root: Path) -> None:
    """`atr_sem_seg_{train,val,test}`."""
    for split in SPLITS:
        common.register_dataset(
            f"atr_sem_seg_{split}",
            functools.partial(load_semantic, root, split),
            functools.partial(part_metadata, "atr_18"),
            evaluator_type="sem_seg",
            ignore_label=255,
        )


def load_semantic(root: Path, split: str) -> list[dict]:
    """The records of the user's list or, without lists, of a part of the sorted files."""
    folder = existing(root, FOLDERS)
    images = find(root, f"{existing(root, [f'{folder}/JPEGImages'])}/*.jpg")
    labels = find(root, f"{existing(root, [f'{folder}/SegmentationClassAug'])}/*.png")
    lists = {name: root / folder / f"{name}.txt" for name in SPLITS}
    if any(path.is_file() for path in lists.values()):
        names = _read_list(lists, split)
    else:
        everything = sorted(images.keys() | labels.keys())
        check_pairs(everything, images, labels, str(root / folder))
        names = _sliced(everything, split, str(root / folder))
    return common.semantic_records(images, labels, f"atr_sem_seg_{split}", names)


def _read_list(lists: dict[str, Path], split: str) -> list[str]:
    path = lists[split]
    if not path.is_file():
        present = " and ".join(other.name for other in lists.values() if other.is_file())
        raise FileNotFoundError(
            f"{path.parent} has {present} but no {path.name}; write all three of "
            f"{', '.join(other.name for other in lists.values())}, or remove {present}"
        )
    return read_stems(path)


def _sliced(names: list[str], split: str, folder: str) -> list[str]:
    """The names of a split, in the sorted order of all."""
    ends = SIZES["train"], SIZES["train"] + SIZES["val"]
    if len(names) <= ends[1]:
        raise ValueError(
            f"{folder} has {len(names)} images, and no lists train.txt, val.txt and test.txt; "
            f"without lists, more than {ends[1]} images are needed, of which the first "
            f"{ends[0]} are train: add the lists, or complete the download"
        )
    _warn(folder)
    parts = dict(zip(SPLITS, (names[: ends[0]], names[ends[0] : ends[1]], names[ends[1] :]),
                     strict=True))  # fmt: skip
    return parts[split]


@functools.cache
def _warn(folder: str) -> None:
    """Once per process."""
    logger.warning(
        "%s has no lists train.txt, val.txt and test.txt, and ATR publishes none: the sorted files "
        "are split at 16,000 and 16,700, so results compare only with those of this split", folder
    )  # fmt: skip


COMMANDS = {}  # the label images are used as they are
