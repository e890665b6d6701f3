"""`rankseg-d2 dataset check` and `stats`: the content of a data set, and its faults."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import unknown_name
from ...files import write_json
from ...tables import text_table
from ..formats.label_colors import COLOR
from ..formats.label_images import suggest_fix
from ..own.description import read_own_data
from ..own.pairing import Fault
from ..own.records import find_records, why_empty
from ..own.register import register_own_data
from .class_faults import class_faults, yaml_line
from .scan import UNKNOWN, Meaning, Tally, class_names, scan
from .stats import add_stats_arguments, check_matrix, stats_report, write_matrix

_SHOWN = 20  # faults of one kind in the text; the json has all


class Part(NamedTuple):
    """A split of a yaml, or a registered data set."""

    name: str
    records: list[dict]
    faults: list[Fault]  # files without their pair
    metadata: Any
    has_all_splits: bool = False  # of a yaml


def add_parsers(commands: Any) -> None:
    """Add `check` and `stats` to the subcommands of `rankseg-d2 dataset`."""
    check = commands.add_parser(
        "check", help="read every image and label; the status is 1 if there are faults"
    )
    stats = commands.add_parser(
        "stats", help="categories per image, which ones occur together, and which kappa is enough"
    )
    for parser, report in ((check, _check_report), (stats, stats_report)):
        parser.add_argument("dataset", help="a yaml (docs/own_data.md) or a registered name")
        parser.add_argument("--splits", nargs="+", metavar="NAME", help="of a yaml, by default all")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report")
        parser.add_argument(
            "--workers", type=int, metavar="N", help="number of processes, by default the fastest"
        )
        parser.set_defaults(run=lambda args, report=report: _run(args, report))
    add_stats_arguments(stats)


def _run(args, report: Callable) -> int:
    is_check = report is _check_report
    parts = _find_parts(args.dataset, args.splits)
    if getattr(args, "matrix", None):
        check_matrix(parts[0].metadata)
    tallies = {part.name: scan(part.records, part.metadata, part.name, args.workers)
               for part in parts}
    faults = _all_faults(parts, tallies, args.dataset)
    content, text = report(parts, tallies, faults, args)
    if args.json:
        write_json(args.json, content)
    if getattr(args, "matrix", None):
        write_matrix(args.matrix, parts, tallies)
    sys.stdout.write(text)
    return int(is_check and bool(faults))


def _find_parts(dataset: str, splits: list[str] | None = None) -> list[Part]:
    """The splits of a yaml, including those with faults; or one registered data set."""
    if dataset in DatasetCatalog.list():
        return [Part(dataset, DatasetCatalog.get(dataset), [], MetadataCatalog.get(dataset))]
    if not dataset.endswith((".yaml", ".yml")):
        raise unknown_name("the data set (a registered name, or a .yaml file)",
                           dataset, DatasetCatalog.list())
    data = read_own_data(dataset)
    known = {split.name: split for split in data.splits}
    for name in splits or ():
        if name not in known:
            raise unknown_name("--splits", name, known)
    parts = []
    for split, name in zip(data.splits, register_own_data(dataset), strict=True):
        if not splits or split.name in splits:
            records, faults = find_records(data, split)
            if not records:
                faults.append(Fault("empty split", data.path.name, why_empty(data, split)))
            parts.append(Part(split.name, records, faults, MetadataCatalog.get(name),
                              not splits or set(splits) == known.keys()))
    return parts


def _all_faults(parts: list[Part], tallies: dict[str, Tally], dataset: str) -> list[Fault]:
    """The faults of files, each once, and those of all labels together."""
    faults = [fault for part in parts for fault in part.faults + tallies[part.name].faults]
    if parts[0].has_all_splits and any(tally.records for tally in tallies.values()):
        faults += class_faults(parts[0].metadata, list(tallies.values()), dataset)
    return list(dict.fromkeys(faults))  # splits of one folder share the faults of pairs


def _check_report(
    parts: list[Part], tallies: dict[str, Tally], faults: list[Fault], args
) -> tuple[dict, str]:
    """The counts and faults: as json content, and as text for a terminal."""
    names = class_names(parts[0].metadata)
    splits, classes = _count_rows(tallies, names)
    seen = sum(tally.images for tally in tallies.values())
    never = [name for name, count in zip(names, seen, strict=True) if not count]
    fix = _suggested_fix(parts, tallies)
    content = {
        "dataset": args.dataset,
        "splits": splits,
        "classes": classes,
        "classes that never occur": never,
        "faults": [fault._asdict() for fault in faults],
        "fix": fix,
    }
    lines = [text_table(splits), "", text_table(classes), ""]
    if never:
        lines.append(f"{len(never)} classes never occur: {'; '.join(never)}")
    lines += _fault_lines(faults)
    if fix:
        lines.append(f"to fix the unknown values: {fix}")
    lines.append(f"{len(faults)} faults" if faults else "nothing is wrong")
    return content, "\n".join(lines) + "\n"


def _count_rows(tallies: dict[str, Tally], names: list[str]) -> tuple[list[dict], list[dict]]:
    """One row for each split, and one for each class with its counts in each split."""
    splits = [
        {"split": name, "images": tally.records, "labelled pixels": int(tally.pixels.sum())}
        | {"ignored pixels": tally.ignored}
        for name, tally in tallies.items()
    ]
    classes = [
        {"id": i, "class": name}
        | {f"pixels {split}": int(tally.pixels[i]) for split, tally in tallies.items()}
        | {f"images {split}": int(tally.images[i]) for split, tally in tallies.items()}
        for i, name in enumerate(names)
    ]
    return splits, classes


def _fault_lines(faults: list[Fault]) -> list[str]:
    lines = []
    for kind in dict.fromkeys(fault.kind for fault in faults):
        same = [fault for fault in faults if fault.kind == kind]
        lines.append(f"{kind}: {len(same)}")
        lines += [f"    {fault.file}  {fault.text}" for fault in same[:_SHOWN]]
        if len(same) > _SHOWN:
            lines.append(f"    and {len(same) - _SHOWN} more; --json FILE lists all")
    return lines


def _suggested_fix(parts: list[Part], tallies: dict[str, Tally]) -> str | None:
    """The keys of the yaml that would give all values a meaning; None if all have one."""
    values = np.array(sorted(set().union(*(tally.values for tally in tallies.values()))), np.int64)
    metadata = parts[0].metadata
    is_unknown = Meaning.of(metadata).classes(values) == UNKNOWN
    if metadata.get("unknown_is_ignored", False) or not is_unknown.any():
        return None
    fix = suggest_fix(values[values < COLOR], metadata) if values[0] < COLOR else ""
    names = class_names(metadata)
    if fix.startswith("no label_offset") and len(values) == len(names):
        pairs = dict(zip(values.tolist(), names, strict=True))
        return f"`values: {yaml_line(pairs)}` would fit, if the classes have this order"
    return fix or None
