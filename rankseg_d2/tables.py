"""Tables of results, as json and csv files and as text for the log."""

import csv
import io
import math
import os
from collections import Counter
from typing import Any

from . import files


def write_tables(folder: str | None, name: str, metrics: dict, rows: list[dict]) -> None:
    """Write `name`.json with metrics and rows, and `name`.csv with rows; without folder, nothing.

    All rows have the same keys. NaN is null in json and an empty cell in csv.
    """
    if folder is None:
        return
    metrics, rows = without_nan(metrics), [without_nan(row) for row in rows]
    write_json(folder, name, {"metrics": metrics, "rows": rows}, indent=1)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    files.write_bytes(os.path.join(folder, f"{name}.csv"), text.getvalue().encode())


def write_json(folder: str, name: str, content: Any, indent: int | None = None) -> None:
    files.write_json(os.path.join(folder, f"{name}.json"), content, indent)


def text_table(rows: list[dict]) -> str:
    """Aligned columns below the keys of the first row; fractions have two decimals.

    Columns of words go to the left, all others to the right.
    """
    columns = []
    for key in rows[0]:
        cells = [_cell(row[key]) for row in rows]
        width = max(map(len, [key, *cells]))
        words = all(cell[:1].isalpha() for cell in cells)
        columns.append([f"{cell:{'<' if words else '>'}{width}}" for cell in (key, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def main_metrics(metrics: dict) -> dict:
    """The metrics over all classes; those of one class have a hyphen in their name."""
    return {name: value for name, value in metrics.items() if "-" not in name}


def unique_names(names: list[str]) -> list[str]:
    """Class names; repeated ones get their id, so that each has its own metric."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def without_nan(row: dict) -> dict:
    """A row with None in place of NaN, which json does not have."""
    return {key: None if _is_nan(value) else value for key, value in row.items()}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
