"""`rankseg-d2 compare`: one table of what the same weights give with fewer categories kept."""

import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from ..errors import unknown_name
from ..files import read_json
from ..tables import text_table, write_tables
from .kappa import start, trained_config
from .sweep import Choice, Results, sweep

KAPPAS = (20, 10)
_COLUMNS = {  # of the table: task and metric
    "mIoU": ("sem_seg", "mIoU"),
    "PQ": ("panoptic_seg", "PQ"),
    "AP": ("segm", "AP"),
    "APp": ("parsing", "APp"),
    "kept": ("multilabel", "k"),
    "recall@κ": ("multilabel", "recall@k"),
    "ms per image": ("time", "ms"),
}


def run(args: Namespace) -> int:
    """The subcommand; `args` are those of `report.cli`."""
    beside = list(_beside(Path(args.beside[0]), args.beside[1:])) if args.beside else []
    cfg = trained_config(args, args.kappas)
    topk = cfg.MODEL.RANKSEG.TOPK
    choices = {f"κ = {topk}, as trained": Choice(topk)}
    choices |= {f"κ = {kappa}": Choice(kappa) for kappa in args.kappas or KAPPAS if kappa < topk}
    choices[f"probability above {args.threshold:g}"] = Choice(topk, args.threshold)
    choices["oracle"] = Choice(topk, oracle=True)
    model = start(cfg, args)
    _, results = sweep(cfg, model, list(choices.values()))
    rows = [{"": name} | row(results[choice]) for name, choice in choices.items()]
    write_tables(cfg.OUTPUT_DIR, "compare", {}, rows)
    shown = [name for name in rows[0] if name]
    for name, found in beside:
        rows.append({"": name} | {column: found.get(column, "-") for column in shown})
    sys.stdout.write(f"\n{text_table(rows)}\n")
    return 0


def row(results: Results) -> dict[str, float]:
    """The numbers of the table that these results have."""
    return {
        column: results[task][metric]
        for column, (task, metric) in _COLUMNS.items()
        if metric in results.get(task, ())
    }


def _beside(path: Path, names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a study (benchmarks/study.py): {run: {"values": {metric: [a value per seed]}}}.

    `setting`, of a run, are options of its training. Without `names` these are all runs.
    """
    try:
        rows = {name: _row_of_a_run(name, run) for name, run in read_json(path).items()}
    except (AttributeError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} has no results of a study; give the json that benchmarks/study.py writes"
        ) from error
    for name in names or rows:
        if name not in rows:
            raise unknown_name(f"--beside {path}: run", name, rows)
        yield rows[name]


def _row_of_a_run(name: str, run: dict) -> tuple[str, dict[str, str]]:
    shown = {}
    for column, (task, metric) in _COLUMNS.items():
        if values := run["values"].get(f"{task}/{metric}"):
            shown[column] = _mean_and_error(values)
    setting, length = run.get("setting", []), "SOLVER.MAX_ITER"
    of = f" of {setting[setting.index(length) + 1]} iterations" if length in setting else ""
    return f"{name} ({len(run['seeds'])} trainings{of})", shown


def _mean_and_error(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"
