"""`rankseg-d2 dataset list`: every public data set, its size, and what this machine lacks of it."""

import fnmatch
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ...errors import nearest
from ...files import listed, read_json, write_json
from ...tables import text_table
from ..datasets import data_root, drawn_sizes

_CATALOG = Path(__file__).parent.parent / "datasets" / "catalog.json"
_SHOWN = 2  # paths of a data set in the text; the json has all


def add_parser(commands: Any) -> None:
    """Add `list` to the subcommands of `rankseg-d2 dataset`."""
    parser = commands.add_parser(
        "list", help="all public data sets: sizes, tasks, licences, and what is missing here"
    )
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD",
        help="only those whose name or task has this in it, such as cihp or parsing",
    )  # fmt: skip
    parser.add_argument(
        "--root",
        type=Path,
        default=data_root(),
        metavar="DIR",
        help="the folder of all data sets, by default DETECTRON2_DATASETS, else ./datasets",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that is known")
    parser.set_defaults(run=_run)


def _run(args: Namespace) -> int:
    rows = describe_all(args.root.expanduser())
    found = [row for row in rows if _has(row, args.word)]
    if not found:
        near = ", ".join(nearest(args.word, [row["name"] for row in rows]))
        raise ValueError(f"no data set has {args.word!r} in its name or task; the nearest names "
                         f"are {near}")
    if args.json:
        write_json(args.json, {"root": str(args.root), "datasets": found}, indent=1)
    sys.stdout.write(_text(found, args.root))
    return 0


def describe_all(root: Path) -> list[dict]:
    """What is known of each data set: the rows of catalog.json, names, and what is missing.

    `missing` has what is to be downloaded, `to_prepare` what a command makes.
    """
    names = DatasetCatalog.list()
    rows = []
    for row in [*read_json(_CATALOG)["datasets"], *_drawn()]:
        own = [name for name in names if any(fnmatch.fnmatch(name, x) for x in row["registered"])]
        missing = _absent(root, row.get("needs", ()))
        made = [] if missing else _absent(root, row.get("makes", ()))
        licence = row.get("licence")
        note = f"{licence}, see {row['home']}" if licence else f"see {row['home']}"
        rows.append(row | {"registered": sorted(own), "licence": note, "missing": missing,
                           "to_prepare": made})  # fmt: skip
    return rows


def _drawn() -> list[dict]:
    """The built-in data sets, which are drawn on first use."""
    return [
        {
            "name": name,
            "registered": [f"{name}_*"],
            "images": counts,
            "classes": classes,
            "tasks": [
                "semantic", "panoptic", "instance", "entity", "video semantic", "video instance"
            ],
            "home": f"docs/{name}.md",
            "command": name,
        }
        for name, counts, classes in drawn_sizes()
    ]  # fmt: skip


def _absent(root: Path, needs: list) -> list[str]:
    """Those of the patterns that no file below `root` matches; of alternatives, the first."""
    choices = [[need] if isinstance(need, str) else need for need in needs]
    return [x[0] for x in choices if not any(any(listed(root, pattern)) for pattern in x)]


def _has(row: dict, word: str) -> bool:
    texts = [row["name"], *row["registered"], *row["tasks"]]
    return any(word.casefold() in text.casefold() for text in texts)


def _text(rows: list[dict], root: Path) -> str:
    """A table, then what each data set lacks, and the licences."""
    table = [
        {
            "data set": row["name"],
            "images or videos": _counts(row.get("images") or row["videos"]),
            "classes": row["classes"],
            "tasks": ", ".join(row["tasks"]),
            "here": _state(row),
        }
        for row in rows
    ]
    lines = [text_table(table), "", f"missing in {root}:"]
    lines += [f"    {row['name']}: {_lacks(row)}" for row in rows if _lacks(row)] or ["    nothing"]
    lines += ["", "licences:", *(f"    {row['name']}: {row['licence']}" for row in rows)]
    return "\n".join(lines) + "\n"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _state(row: dict) -> str:
    if not row.get("needs"):
        return "drawn on first use"
    if len(row["missing"]) == len(row["needs"]):
        return "no"
    if row["missing"]:
        return "in part"
    return "to prepare" if row["to_prepare"] else "yes"


def _lacks(row: dict) -> str:
    """What is missing, in a line; "" if nothing is."""
    if row["to_prepare"]:
        return f"run `rankseg-d2 dataset prepare {row['command']}`"
    more = len(row["missing"]) - _SHOWN
    shown = ", ".join(row["missing"][:_SHOWN])
    return f"{shown}, and {more} more" if more > 0 else shown


