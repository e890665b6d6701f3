"""metrics.json as a table: metrics.csv, and the curves of it."""

import contextlib
import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..drawing import plot_curves
from ..files import write_bytes
from .console import loss_kinds

# The results of an evaluation that are drawn, if there are any; else those without a class.
_MAIN = re.compile(r"(.*/)?(mIoU|PQ|AP|mAP|VC8)")
_MOST_CURVES = 8
_SIZE = 900, 330  # of each chart


class MetricsTable:
    """The rows of metrics.json, {iteration: {name: value}}, and metrics.csv beside it.

    metrics.json gets a line for each iteration that is logged. Where a run was resumed, lines of
    iterations that are done once more come twice; then the later one counts.
    """

    def __init__(self, folder: str | os.PathLike, start_iter: int = 0) -> None:
        """Of a run that goes on at `start_iter`, later rows are not read, since it makes them anew.

        The row of `start_iter` is the evaluation at the end of a training that is made longer.
        """
        self._source = Path(folder, "metrics.json")
        self._file = Path(folder, "metrics.csv")
        self._read_to = 0  # bytes of the source
        self._columns: list[str] = []  # of the csv file; none: to be written anew
        self.rows: dict[int, dict[str, float]] = {}
        for row in self._new_rows():
            if start_iter and row["iteration"] <= start_iter:
                self._add(row)

    def update(self) -> set[str]:
        """Take what is new in metrics.json into the table and the csv file; the names in it."""
        last = max(self.rows, default=-1)
        new = list(self._new_rows())
        names = {name for row in new for name in row}
        for row in new:
            self._add(row)
        follows = all(row["iteration"] > last for row in new)
        if not self._columns or not names <= set(self._columns) or not follows:
            self._columns = _ordered({"iteration"}.union(*self.rows.values()))
            text = self._csv(self.rows, with_head=True)
            write_bytes(self._file, text.encode())
        elif new:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(self._csv({row["iteration"] for row in new}))
        return names

    def _new_rows(self) -> Iterable[dict[str, float]]:
        if not self._source.is_file():
            return
        with open(self._source, "rb") as file:
            file.seek(self._read_to)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to += len(whole)
        yield from filter(None, map(_parse, whole.decode(errors="replace").split("\n")))

    def _add(self, row):
        self.rows.setdefault(row["iteration"], {}).update(row)

    def _csv(self, iterations: Iterable[int], with_head: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if with_head:
            writer.writeheader()
        for iteration in sorted(iterations):
            row = self.rows[iteration].items()
            writer.writerow({name: value for name, value in row if value == value})
        return text.getvalue()


def _parse(line: str) -> dict[str, float] | None:
    """The row of a line; None without one. A run that was killed may have left half a line."""
    for text in (line, line[max(line.rfind('{"'), 0) :]):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(text)
            return row | {"iteration": int(row["iteration"])}
    return None


def is_result(name: str) -> bool:
    """Whether a scalar is of an evaluation; those of the training's ranking have a / too."""
    return "/" in name and not name.startswith("ranking/")


def _ordered(names: Iterable[str]) -> list[str]:
    """The iteration, the losses, the rest of the training, then the results of evaluations."""

    def place(name: str) -> tuple:
        is_loss = "loss" in name
        return name != "iteration", is_result(name), not is_loss, name != "total_loss", name

    return sorted(names, key=place)


Series = dict[str, list[tuple[int, float]]]  # name -> points


def read_rows(folder: str | os.PathLike) -> dict[int, dict[str, float]]:
    """{iteration: {name: value}} of a run; empty without a training."""
    return MetricsTable(folder, start_iter=sys.maxsize).rows


def series_of(rows: Mapping[int, Mapping[str, float]]) -> tuple[Series, Series]:
    """The losses, and the main results of the evaluations, by iteration."""
    losses: Series = {}
    results: Series = {}
    for iteration, row in sorted(rows.items()):
        kinds = {"total": row["total_loss"]} if "total_loss" in row else {}
        for name, value in (kinds | loss_kinds(row)).items():
            losses.setdefault(name, []).append((iteration, value))
        for name, value in row.items():
            if is_result(name) and "-" not in name.rpartition("/")[2]:
                results.setdefault(name, []).append((iteration, value))
    main = {name: points for name, points in results.items() if _MAIN.fullmatch(name)} or results
    return losses, dict(list(main.items())[:_MOST_CURVES])


def draw_curves(rows: Mapping[int, Mapping[str, float]], title: str = "") -> np.ndarray:
    """The losses and the main results of the evaluations against the iteration, as a picture."""
    losses, main = series_of(rows)
    charts = [(losses, f"{title}: losses" if title else "losses")]
    if main:
        charts.append((main, "evaluation"))
    shown = [x for series, _ in charts for points in series.values() for x, _ in points]
    ends = (min(shown), max(shown)) if len(set(shown)) > 1 else None  # the same for both charts
    return np.concatenate([_chart(series, head, ends) for series, head in charts])


def _chart(series: Series, title: str, ends: tuple[int, int] | None) -> np.ndarray:
    curves = {name: tuple(map(list, zip(*points, strict=True))) for name, points in series.items()}
    limits = _limits(curves)
    return plot_curves(curves, title, "iteration", size=_SIZE, y_limits=limits, x_limits=ends)


def _limits(curves: Mapping[str, tuple[list[int], list[float]]]) -> tuple[float, float] | None:
    """From 0, so that heights compare; None where a value is below 0, or there is none above."""
    values = [y for _, values in curves.values() for y in values if math.isfinite(y)]
    if not values or min(values) < 0 or max(values) <= 0:
        return None
    return 0.0, 1.05 * max(values)
