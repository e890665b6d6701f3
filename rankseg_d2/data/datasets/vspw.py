"""VSPW, 124 classes: videos with a label map for every frame."""

import functools
import glob
from pathlib import Path

import numpy as np

from ..classes import load_classes
from ..formats.file_lists import check_pairs, find, read_names
from ..formats.video_frames import video_size
from . import common

FOLDER = "VSPW_480p"
SPLITS = ("train", "val", "test")
IGNORE = 255
_OTHERS = 0  # in the files: none of the classes


def register(root: Path) -> None:
    """`vspw_{train,val,test}`; the labels of test are not public."""
    for split in SPLITS:
        common.register_dataset(
            f"vspw_{split}",
            functools.partial(load_videos, root / FOLDER, split, split != "test"),
            _read_metadata,
            evaluator_type="vspw_sem_seg",
            image_root=root / FOLDER / "data",
            sem_seg_root=root / FOLDER / "data",
            ignore_label=IGNORE,
            has_labels=split != "test",
            unknown_is_ignored=True,  # a few files have values without a class
        )


def _read_metadata() -> dict:
    classes = load_classes("vspw_124")
    return {"label_table": label_table(classes)} | common.semantic_metadata(classes)


def label_table(classes: list[dict]) -> np.ndarray:
    """Value in the files -> contiguous id, IGNORE, or -1 for a value without meaning: (256,)."""
    table = np.full(256, -1)
    table[[_OTHERS, IGNORE]] = IGNORE
    for entry in classes:
        table[entry["id"]] = entry["train_id"]
    return table


def load_videos(folder: Path, split: str, has_labels: bool = True) -> list[dict]:
    """One record per video that the split's list names, in VSPW's layout."""
    names = read_names(folder / f"{split}.txt")
    frames = {name: find(folder / "data", f"{glob.escape(name)}/origin/*.jpg") for name in names}
    labels = None
    if has_labels:
        labels = {name: find(folder / "data", f"{glob.escape(name)}/mask/*.png") for name in names}
    return _label_map_records(frames, labels, str(folder / f"{split}.txt"))


def _label_map_records(frames: dict, labels: dict | None, where: str) -> list[dict]:
    """Records of videos from their files by video and frame, in the given order.

    Each frame must have a label map and each label map a frame, unless `labels` is None.
    """
    empty = [name for name, files in frames.items() if not files]
    if empty:
        raise FileNotFoundError(
            f"{len(empty)} of the {len(frames)} videos of {where} have no frame, such as "
            f"{', '.join(empty[:3])}; add their frames, or remove them from the list"
        )
    if labels is not None:
        pairs = [_by_path(frames), _by_path(labels)]
        check_pairs(sorted(pairs[0].keys() | pairs[1].keys()), *pairs, where)
    records = []
    for name, files in frames.items():
        record = {"video_id": name, "file_names": [str(path) for path in files.values()]}
        if labels is not None:
            record["sem_seg_file_names"] = [str(labels[name][frame]) for frame in files]
        records.append(record | {"length": len(files)} | video_size(record["file_names"]))
    return records


def _by_path(files: dict[str, dict]) -> dict:
    return {f"{video}/{frame}": path for video, of in files.items() for frame, path in of.items()}


COMMANDS = {}  # the 480p release needs no preparation
