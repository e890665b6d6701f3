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
from ..evaluation.confusion import Confusion
from ..files import read_json, write_bytes, write_image, write_json
from ..tables import main_metrics, without_nan
from .run_folder import warning_of

FILE = "evaluation.json"
MOST_CLASSES = 30  # of confusion.png
# of evaluators, with all classes
_TABLES = "sem_seg", "panoptic_seg", "segm", "bbox", "entity", "parsing", "multilabel"
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
            with warning_of(target):
                write_image(target, draw_confusion(*Confusion.load(matrix), name))
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


def draw_confusion(confusion: Confusion, names: Sequence[str], title: str = "") -> np.ndarray:
    """Where the pixels of each class go, as shares of its ground truth, as a picture.

    Of many classes, the MOST_CLASSES that are confused the most, and the others in one column.
    """
    shown, count = confused_classes(confusion), len(names)
    heads = [*(names[i] for i in shown), "all other classes", "no category"]
    # The column of each prediction, and the row of each class; -1: it has none.
    columns = np.full(count + 1, len(shown))
    columns[shown], columns[count] = np.arange(len(shown)), len(shown) + 1
    true, predicted, _ = confusion.pairs()
    rows = np.where(columns[true] < len(shown), columns[true], -1)
    table = np.zeros((len(shown), len(heads)))
    table[confusion.true_pixels()[shown] == 0] = np.nan
    own = rows >= 0
    np.add.at(table, (rows[own], columns[predicted[own]]), confusion.shares()[own])
    kept = np.ones(len(heads), bool)
    if len(shown) < count:
        title = f"{title}, the {len(shown)} most confused classes of {count}"
    kept[-2:] = len(shown) < count, (predicted == count).any()
    heads = [head for head, keep in zip(heads, kept, strict=True) if keep]
    return heat_map(table[:, kept], heads, title)


def confused_classes(confusion: Confusion, most: int = MOST_CLASSES) -> list[int]:
    """The classes with the largest share of wrong pixels, taken for others or others for them.

    All count the same, whatever their pixels. They come in the order of the classes.
    """
    true, predicted, _ = confusion.pairs()
    wrong, count = true != predicted, confusion.num_classes
    wrongs = np.zeros(count + 1)
    for sides in (true, predicted):
        np.add.at(wrongs, sides[wrong], confusion.shares()[wrong])
    order = np.argsort(-wrongs[:-1], kind="stable")
    return sorted(order[:most].tolist())
