"""What OUTPUT_DIR shows of an evaluation: tables, confusion.png and val_*.jpg."""

import csv
import datetime
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..data.formats.image_files import read_rgb
from ..drawing import heat_map
from ..files import read_json, write_bytes, write_image, write_json
from ..tables import main_metrics, without_nan
from .run_folder import warning_of

FILE = "evaluation.json"
MOST_CLASSES = 30  # of confusion.png
_TABLES = "sem_seg", "panoptic_seg", "segm", "bbox", "multilabel"  # of evaluators, with all classes
_NOT_METRICS = "id", "class", "isthing"


def write_results(cfg: CfgNode, results: Mapping[str, Any], weights: str = "") -> None:
    """Gather the files of an evaluation, `results` of Trainer.test, in OUTPUT_DIR.

    evaluation.json says which data sets and tasks were evaluated, and which `weights`.
    per_class.csv has a row for each class of each data set of DATASETS.TEST. confusion.png is of
    the first data set, confusion_<name>.png of others, and val_<name>.jpg has its pictures.
    """
    if not comm.is_main_process():
        return
    folder, rows, has_confusion = Path(cfg.OUTPUT_DIR), [], False
    with warning_of(folder / FILE):
        _write_summary(cfg, results, weights)
    for name in cfg.DATASETS.TEST:
        own = results.get(name, results)  # of several data sets, {name: results}
        source = folder / "inference" / name
        with warning_of(folder / "per_class.csv"):
            rows += [{"dataset": name} | row for row in class_rows(source, own)]
        matrix = source / "sem_seg_confusion.npz"
        if "sem_seg" in own and matrix.is_file():
            ending = f"_{_plain(name)}" if has_confusion else ""
            target, has_confusion = folder / f"confusion{ending}.png", True
            with warning_of(target), np.load(matrix) as content:
                names = list(map(str, content["classes"]))
                write_image(target, draw_confusion(content["matrix"], names, name))
        if own and cfg.TEST.PICTURES and (source / "sheet.png").is_file():
            target = folder / f"val_{_plain(name)}.jpg"
            with warning_of(target):
                write_image(target, read_rgb(os.fspath(source / "sheet.png")), quality=92)
    with warning_of(folder / "per_class.csv"):
        if rows:
            _write_csv(folder / "per_class.csv", rows)


def _write_summary(cfg: CfgNode, results: Mapping[str, Any], weights: str) -> None:
    """Write the means over the classes of all data sets that were evaluated."""
    if len(cfg.DATASETS.TEST) == 1:  # of several, results are {name: results} already
        results = {cfg.DATASETS.TEST[0]: results}
    results = {
        name: {
            task: without_nan(main_metrics(metrics))
            for task, metrics in own.items()
            if isinstance(metrics, Mapping)
        }
        for name, own in results.items()
        if own
    }
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if results:
        content = {"date": date, "weights": weights, "results": results}
        write_json(Path(cfg.OUTPUT_DIR, FILE), content, indent=1)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def class_rows(folder: Path, evaluated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each class, with the columns <task>/<metric> of all tasks evaluated."""
    rows: dict[str, dict[str, Any]] = {}
    for task in _TABLES:
        path = folder / f"{task}.json"
        if task in evaluated and path.is_file():
            for entry in read_json(path)["rows"]:
                row = rows.setdefault(entry["class"], {"class": entry["class"]})
                row |= {f"{task}/{key}": value for key, value in entry.items()
                        if key not in _NOT_METRICS}  # fmt: skip
    return list(rows.values())


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def draw_confusion(matrix: np.ndarray, names: Sequence[str], title: str = "") -> np.ndarray:
    """Where the pixels of each class go, as shares of its ground truth, as a picture.

    Of many classes, the MOST_CLASSES that are confused the most, and the others in one column.

    Args:
        matrix: (C, C + 1), pixels; rows are the ground truth, columns the prediction, the last one
            no category.
    """
    pixels = np.asarray(matrix, float)
    with np.errstate(invalid="ignore"):
        shares = pixels / pixels.sum(1, keepdims=True)  # NaN without ground truth
    shown, columns = confused_classes(matrix), [shares[:, :-1]]
    heads = [*(names[i] for i in shown)]
    if len(shown) < len(names):
        title = f"{title}, the {len(shown)} most confused classes of {len(names)}"
        others = np.delete(shares[:, :-1], shown, 1).sum(1, keepdims=True)
        columns, heads = [shares[:, shown], others], [*heads, "all other classes"]
    if matrix[:, -1].any():
        columns, heads = [*columns, shares[:, -1:]], [*heads, "no category"]
    return heat_map(np.concatenate(columns, 1)[shown], heads, title)


def confused_classes(matrix: np.ndarray, most: int = MOST_CLASSES) -> list[int]:
    """The classes with the largest share of wrong pixels, taken for others or others for them.

    All count the same, whatever their pixels. They come in the order of the classes.
    """
    pixels = np.asarray(matrix, float)
    shares = pixels / pixels.sum(1, keepdims=True).clip(1)
    wrong = shares[:, :-1] * (1 - np.eye(len(pixels)))
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1) + shares[:, -1]), kind="stable")
    return sorted(order[:most].tolist())
