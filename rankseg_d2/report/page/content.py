"""What the page of a run shows, read from the files that training and evaluation have written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ... import __version__
from ...engine.metrics_table import read_rows, series_of
from ...engine.result_files import FILE, class_rows
from ...evaluation.confusion import Confusion
from ...evaluation.error_split import STEPS
from ...files import read_json
from .pictures import example_rows

Json = dict[str, Any]

MOST_PAIRS = 40  # of confused classes
_MOST_POINTS = 600  # of a curve
# (task, metric, its name, what it is)
_HEADLINES = (
    ("sem_seg", "mIoU", "mIoU", "mean over the classes of intersection over union"),
    ("sem_seg", "pACC", "pixel accuracy", "share of the pixels that are right"),
    ("sem_seg", "VC8", "VC8", "consistency over 8 frames"),
    ("sem_seg", "VC16", "VC16", "consistency over 16 frames"),
    ("panoptic_seg", "PQ", "PQ", "panoptic quality: SQ times RQ, mean over the classes"),
    ("panoptic_seg", "SQ", "SQ", "how well the segments that were found are outlined"),
    ("panoptic_seg", "RQ", "RQ", "how many segments are found (F1)"),
    ("segm", "AP", "mask AP", "mean over IoU thresholds from 0.5 to 0.95"),
    ("segm", "AP50", "mask AP50", "at an IoU of 0.5"),
    ("parsing", "APp", "AP of persons", "mean over overlaps of all parts from 0.1 to 0.9"),
    ("parsing", "PCP50", "PCP", "share of a person's parts that are found"),
    ("parsing", "APr", "AP of parts", "mean over parts and IoU thresholds from 0.1 to 0.9"),
    ("entity", "AP", "entity AP", "mask AP of all things and stuff as one class"),
    ("entity", "AP50", "entity AP50", "at an IoU of 0.5"),
    ("multilabel", "mAP", "mAP of the ranking", "how well the head finds a category's images"),
    ("multilabel", "recall@k", "recall@κ", "share of an image's categories that are kept"),
    ("multilabel", "precision@k", "precision@κ", "share of the kept categories that are present"),
    ("multilabel", "k", "kept", "categories kept in an image, on average"),
)
_SPLITS = {"sem_seg": "mIoU", "panoptic_seg": "PQ"}


def read_run(folder: str | os.PathLike) -> Json:
    """The content of the page; FileNotFoundError or ValueError if there was no evaluation."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; give the OUTPUT_DIR of a training or an evaluation"
        )
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"{folder} has no {FILE}, so {_advice(folder)}")
    summary = read_json(folder / FILE)
    if not isinstance(summary, dict) or not summary.get("results"):
        raise ValueError(f"{folder / FILE} has no results, so {_advice(folder)}")
    losses, metrics = series_of(read_rows(folder))
    return {
        "name": folder.resolve().name,
        "facts": _facts(folder, summary),
        "curves": [
            {"title": title, "series": _thinned(series)}
            for title, series in (("Losses", losses), ("Evaluation", metrics))
            if series
        ],
        "datasets": [
            read_dataset(folder / "inference" / name, name, results)
            for name, results in summary["results"].items()
        ],
    }


def _advice(folder: Path) -> str:
    """What to run first."""
    config = folder / "config.yaml"
    if config.is_file():
        command = f"rankseg-d2 eval --resume {config} OUTPUT_DIR {folder}"
        return f"there is nothing to report; run `{command}` first"
    return "it is no run of rankseg_d2; run `rankseg-d2 train` or `rankseg-d2 eval` first"


def _facts(folder: Path, summary: Json) -> list[tuple[str, str]]:
    """Names and values of what the run is."""
    date = str(summary.get("date", ""))[:16].replace("T", " ")  # to the minute
    facts = [("weights", summary.get("weights")), ("evaluated", date)]
    path = folder / "config.yaml"
    if path.is_file():
        model = (yaml.safe_load(path.read_text()) or {}).get("MODEL", {})
        ranking = model.get("RANKSEG", {})
        facts.insert(0, ("model", model.get("META_ARCHITECTURE")))
        if ranking.get("FLAG"):
            facts.insert(1, ("κ", ranking.get("TOPK")))
    facts.append(("rankseg_d2", __version__))
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _thinned(series: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Points that a chart can show; of longer curves, the mean of neighbours."""
    return {name: _means(np.array(points, float)).tolist() for name, points in series.items()}


def _means(points: np.ndarray) -> np.ndarray:
    points = points[np.isfinite(points).all(1)]
    parts = np.array_split(points, min(len(points), _MOST_POINTS)) if len(points) else []
    return np.array([part.mean(0) for part in parts]).reshape(-1, 2)


def read_dataset(folder: Path, name: str, results: Json) -> Json:
    """What the evaluators of a data set have written in inference/NAME."""
    return {
        "name": name,
        "headlines": [
            {"name": title, "value": value, "about": about, "unit": "" if metric == "k" else "%"}
            for task, metric, title, about in _HEADLINES
            if (value := results.get(task, {}).get(metric)) is not None
        ],
        "splits": [
            split for task in _SPLITS if task in results if (split := _split(folder, task))
        ],
        "ranking": _ranking(folder, results) if "multilabel" in results else None,
        "classes": _classes(folder, results),
        "confusion": _confusion(folder) if "sem_seg" in results else None,
        "examples": example_rows(folder),
    }


def _table(folder: Path, name: str) -> Json:
    """A table of an evaluator, {} if it does not exist."""
    path = folder / f"{name}.json"
    return read_json(path) if path.is_file() else {}


def _split(folder: Path, task: str) -> Json | None:
    metrics = _table(folder, f"{task}_errors").get("metrics")
    if not metrics or metrics.get(_SPLITS[task]) is None:
        return None
    return {"metric": _SPLITS[task], "value": metrics[_SPLITS[task]]} | {
        step: metrics[step] for step in STEPS
    }


def _ranking(folder: Path, results: Json) -> Json | None:
    """Recall and precision at each κ, how many categories have each rank, and calibration."""
    rows = _table(folder, "multilabel_ranks").get("rows")
    if not rows:
        return None
    last = max((row["rank"] for row in rows if row["labels"]), default=1)
    kept = results["multilabel"].get("k")
    last = min(len(rows), max(last, round(kept or 0)) + 5)
    columns = ("labels", "recall", "precision")
    return {
        "kept": kept,
        **{name: [row.get(name) for row in rows[:last]] for name in columns},
        "calibration": _table(folder, "multilabel_calibration") or None,
    }


def _classes(folder: Path, results: Json) -> Json:
    """The table of the classes: columns, and rows in the order of the data set."""
    rows = class_rows(folder, results)
    for task, metric in _SPLITS.items():
        lost = {row["class"]: row for row in _table(folder, f"{task}_errors").get("rows", ())}
        for row in rows if task in results else ():
            if row["class"] in lost:
                own = lost[row["class"]]
                name = metric.removeprefix("m")  # of one class
                row |= {f"{task}/{name} lost to {step}": own[step] for step in STEPS}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {
        "columns": [_head(column) for column in columns],
        "rows": [[_short(row.get(column)) for column in columns] for row in rows],
    }


def _head(column: str) -> Json:
    """A column's name, and the task that its values are of."""
    task, _, metric = column.rpartition("/")
    return {"name": metric.replace("_", " "), "task": task}


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def _confusion(folder: Path) -> Json | None:
    """The pairs of classes with the largest share of the ground truth taken for the other one."""
    path = folder / "sem_seg_confusion.npz"
    if not path.is_file():
        return None
    confusion, names = Confusion.load(path)
    return {"pairs": confused_pairs(confusion, [*names, "no category"])}


def confused_pairs(
    confusion: Confusion, names: Sequence[str], most: int = MOST_PAIRS
) -> list[Json]:
    """Pairs of different classes, the one that costs most pixels of its class first."""
    true, predicted, pixels = confusion.pairs()
    shares = 100 * confusion.shares()
    order = np.argsort(-shares, kind="stable")
    order = order[true[order] != predicted[order]][:most]
    return [
        {"true": names[true[i]], "predicted": names[predicted[i]],
         "share": round(float(shares[i]), 2), "pixels": int(pixels[i])}
        for i in order
    ]  # fmt: skip
