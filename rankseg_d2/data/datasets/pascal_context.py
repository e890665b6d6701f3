"""PASCAL-Context with 59 classes, or with 60, of which one is background."""

import functools
from pathlib import Path

import numpy as np

from ...files import read_json, write_bytes, write_image
from ..classes import load_classes
from ..formats.file_lists import check_pairs, find, read_names
from ..formats.matlab import read_matlab
from ..formats.painting import paint_categories
from ..prepare.job import UNKNOWN, Job, Preparation, make_files, map_values
from . import common
from .common import Command

FOLDER = "VOCdevkit/VOC2010"
SPLITS = ("train", "val")
_DETAIL = f"{FOLDER}/trainval_merged.json"  # of the Detail API
MATLAB = f"{FOLDER}/trainval"  # *.mat of the data set's own page
IGNORE = 255
_NUM_RAW_CLASSES = 459


def register(root: Path) -> None:
    """`pascal_context_{59,60}_sem_seg_{train,val}`, which share their label maps."""
    without_background = np.append(IGNORE, np.arange(59))
    for split in SPLITS:
        for number, table in ((59, {"label_table": without_background}), (60, {})):
            common.register_dataset(
                f"pascal_context_{number}_sem_seg_{split}",
                functools.partial(load_semantic, root, split),
                functools.partial(_read_metadata, number),
                image_root=root / FOLDER / "JPEGImages",
                sem_seg_root=root / FOLDER / "SegmentationClassContext",
                evaluator_type="sem_seg",
                ignore_label=IGNORE,
                **table,
            )


def _read_metadata(number: int) -> dict:
    return common.semantic_metadata(load_classes(f"pascal_context_{number}"))


def load_semantic(root: Path, split: str) -> list[dict]:
    preparation(root, split).require()
    return common.semantic_records(
        find(root, f"{FOLDER}/JPEGImages/*.jpg"),
        find(root, f"{FOLDER}/SegmentationClassContext/*.png"),
        f"pascal_context_sem_seg_{split}",
        read_names(_split_list(root, split)),
    )


def prepare(root: Path, split: str, workers: int) -> None:
    """The json of the Detail API, or MATLAB files -> label maps (0: background, 1 to 59)."""
    with preparation(root, split).making() as not_before:
        target = root / FOLDER / "SegmentationClassContext"
        find_sources = _detail_sources if (root / _DETAIL).is_file() else _matlab_sources
        jobs = [
            Job(target / f"{name}.png", sources, args)
            for name, sources, args in find_sources(root, split)
        ]
        names = [job.target.stem for job in jobs]
        images = find(root, f"{FOLDER}/JPEGImages/*.jpg")
        check_pairs(names, images, dict.fromkeys(names), str(root / FOLDER / "JPEGImages"))
        make_files(convert, jobs, f"pascal-context {split}", workers, not_before)
        write_bytes(_split_list(root, split), "".join(f"{name}\n" for name in names).encode())


def _detail_sources(root: Path, split: str) -> list[tuple]:
    """(name, source files, (annotations, height, width)) of each image of the split."""
    content = read_json(root / _DETAIL)
    annotations = {image["image_id"]: [] for image in content["images"]}
    for x in content["annos_segmentation"]:
        annotations[x["image_id"]].append((x["category_id"], x["segmentation"]))
    return [
        (
            Path(image["file_name"]).stem,
            (root / _DETAIL,),
            (annotations[image["image_id"]], image["height"], image["width"]),
        )
        for image in content["images"]
        if image["phase"] == split
    ]


def _matlab_sources(root: Path, split: str) -> list[tuple]:
    """(name, (its MATLAB file,), ()) of each image of VOC2010's split."""
    names = read_names(root / FOLDER / "ImageSets" / "Main" / f"{split}.txt")
    labels = find(root, f"{MATLAB}/*.mat")
    check_pairs(names, dict.fromkeys(names), labels, str(root / MATLAB))
    return [(name, (labels[name],), ()) for name in names]


def convert(job: Job) -> None:
    """Keep 59 of the 459 classes; in MATLAB files all others become background."""
    table = np.full(_NUM_RAW_CLASSES + 1, UNKNOWN if job.args else 0, np.int32)
    kept = [entry["id_459"] for entry in load_classes("pascal_context_60")]
    table[kept] = np.arange(len(kept))
    if job.args:
        values = paint_categories(*job.args, f"{job.sources[0]}, image {job.target.stem}")
    else:
        values = read_matlab(job.sources[0], "LabelMap")
    allowed = "the ids of 59 classes of 459, or 0" if job.args else f"0 to {_NUM_RAW_CLASSES}"
    labels = map_values(values, table, job.sources[0], allowed)
    write_image(job.target, labels.astype(np.uint8))


def _split_list(root: Path, split: str) -> Path:
    return root / FOLDER / "ImageSets" / "SegmentationContext" / f"{split}.txt"


def preparation(root: Path, split: str) -> Preparation:
    matlab = (f"{MATLAB}/*.mat", f"{FOLDER}/ImageSets/Main/{split}.txt")
    return Preparation(
        "pascal-context",
        root,
        f"{FOLDER}/prepared_context_{split}.json",
        outputs=(
            f"{FOLDER}/ImageSets/SegmentationContext/{split}.txt",
            f"{FOLDER}/SegmentationClassContext/*.png",
        ),
        sources=(_DETAIL,) if (root / _DETAIL).is_file() else matlab,
    )


COMMANDS = {
    "pascal-context": Command(prepare, SPLITS, "PASCAL-Context, 59 or 60 classes, semantic")
}
