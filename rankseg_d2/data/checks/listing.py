"""`rankseg-d2 dataset list`: every public data set, its size, and what this machine lacks of it."""

import fnmatch
import functools
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ...errors import nearest
from ...files import listed, read_json, write_json
from ...tables import text_table
from ..datasets import data_root, drawn_sizes

_CATALOG = Path(__file__).parent.parent / "datasets" / "catalog.json"
_DRAWN_LICENCES = {
    "shapes": "drawn by this package, no terms of their own",
    "stickers": "pictures: the licence of the emoji font",
}
_SHOWN = 2  # paths of a data set in the text; the json has all


def add_parser(commands: Any) -> None:
    """Add `list` to the subcommands of `rankseg-d2 dataset`."""
    parser = commands.add_parser(
        "list", help="all public data sets: sizes, tasks, licences, and what is missing here"
    )
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD",
        help="only those whose name, task or command has this in it, such as cihp or parsing",
    )  # fmt: skip
    add_root(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that is known")
    parser.set_defaults(run=_run)


def add_root(parser: Any) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        default=data_root(),
        metavar="DIR",
        help="the folder of all data sets, by default DETECTRON2_DATASETS, else ./datasets",
    )


def _run(args: Namespace) -> int:
    rows = describe_all(args.root.expanduser())
    found = [row for row in rows if _has(row, args.word)]
    if not found:
        near = ", ".join(nearest(args.word, [row["name"] for row in rows]))
        raise ValueError(f"no data set has {args.word!r} in its name, task or command; the nearest "
                         f"names are {near}")
    if args.json:
        write_json(args.json, {"root": str(args.root), "datasets": found}, indent=1)
    sys.stdout.write(_text(found, args.root))
    return 0


def describe_all(root: Path) -> list[dict]:
    """What is known of each data set: the rows of catalog.json, names, and what is missing.

    `missing` has what is to be downloaded, `missing_unlabelled` the same of splits without labels,
    `to_prepare` what a command makes, and `found` the number of images or videos, of `published`.
    """
    names = DatasetCatalog.list()
    count = functools.cache(lambda pattern: sum(1 for _ in listed(root, pattern)))
    rows = []
    for row in [*read_json(_CATALOG)["datasets"], *_drawn()]:
        own = [name for name in names if any(fnmatch.fnmatch(name, x) for x in row["registered"])]
        facts = {"registered": sorted(own), "licence": f"{row['licence']}; see {row['home']}"}
        rows.append(row | facts | _found(row, root, count))
    return rows


def _found(row: dict, root: Path, count: Callable[[str], int]) -> dict:
    """What of a data set is present; `count` gives the number of files of a pattern."""
    files, unlabelled = row.get("files", []), row.get("unlabelled", [])
    unfinished = [path for path in row.get("records", ()) if _is_unfinished(root / path)]
    to_prepare = [*_absent(root, row.get("makes", ())), *unfinished]
    downloaded = [*files, *row.get("needs", ())]
    if to_prepare:
        downloaded += row.get("sources", ())
    missing = _absent(root, downloaded)
    return {
        "missing": missing,
        "missing_unlabelled": _absent(root, unlabelled),
        "to_prepare": [] if missing else to_prepare,
        "found": sum(max(map(count, _choices(x))) for x in [*files, *unlabelled]),
        "published": sum((row.get("images") or row["videos"]).values()),
        "is_absent": len(missing) == len(downloaded),
    }


def _is_unfinished(record: Path) -> bool:
    """Whether a preparation was interrupted, or its record is damaged."""
    if not record.is_file():
        return False
    try:
        return not read_json(record)["finished"]
    except (ValueError, KeyError, TypeError):
        return True


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
            "licence": _DRAWN_LICENCES[name],
            "command": name,
        }
        for name, counts, classes in drawn_sizes()
    ]  # fmt: skip


def _absent(root: Path, needs: list) -> list[str]:
    """Those of the patterns that no file below `root` matches; of alternatives, the first."""
    choices = map(_choices, needs)
    return [x[0] for x in choices if not any(any(listed(root, pattern)) for pattern in x)]


def _choices(need: str | list[str]) -> list[str]:
    return [need] if isinstance(need, str) else need


def plain(name: str) -> str:
    """A name as it is compared: COCO_Entity as coco-entity."""
    return name.casefold().replace("-", "").replace("_", "")


def _has(row: dict, word: str) -> bool:
    texts = [row["name"], *row["registered"], *row["tasks"], row.get("command", "")]
    return any(plain(word) in plain(text) for text in texts)


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
    lines += [f"    {row['name']}: {lacks(row)}" for row in rows if lacks(row)] or ["    nothing"]
    lines += ["", "licences:", *(f"    {row['name']}: {row['licence']}" for row in rows)]
    return "\n".join(lines) + "\n"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _state(row: dict) -> str:
    if "files" not in row:
        return "drawn on first use"
    if row["is_absent"]:
        return "no"
    if row["missing"]:
        return "in part"
    state = "to prepare" if row["to_prepare"] else "yes"
    if row["found"] >= row["published"]:
        return state
    state = "in part" if state == "yes" else state
    return f"{state}: {row['found']:,} of {row['published']:,}"


def lacks(row: dict) -> str:
    """What is missing, in a line; "" if nothing is."""
    if "files" not in row:
        return ""
    shown = row["missing"][:_SHOWN]
    more = len(row["missing"]) - len(shown)
    parts = [*shown, f"and {more} more"] if more else shown
    if row["missing"]:
        return ", ".join(parts)
    if row["to_prepare"]:
        parts = [f"run `rankseg-d2 dataset prepare {row['command']}`"]
    if row["found"] < row["published"]:
        what = "images" if "images" in row else "videos"
        parts.append(f"{row['published'] - row['found']:,} of {row['published']:,} {what}")
    parts += [f"{pattern} (without labels)" for pattern in row["missing_unlabelled"]]
    return ", ".join(parts)
