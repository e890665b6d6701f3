"""`rankseg-d2 dataset`: list and prepare public data sets, check and describe any data set."""

import sys
from typing import Any

from ..datasets import COMMANDS
from ..own import commands as own_commands
from ..prepare.processes import usable_cpus
from . import check, listing

_AS_PUBLISHED = ("lip", "cihp", "atr", "vspw")  # data sets whose files are read as they are


def with_our_spelling(words: list[str]) -> list[str]:
    """`dataset prepare COCO_Entity` as `dataset prepare coco-entity`; others as they are."""
    if words[:2] != ["dataset", "prepare"] or len(words) < 3:
        return words
    known = {listing.plain(name): name for name in (*COMMANDS, *_AS_PUBLISHED)}
    return [*words[:2], known.get(listing.plain(words[2]), words[2]), *words[3:]]


def add_parser(commands: Any) -> None:
    """Add `dataset` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser("dataset", help="describe, check and prepare data sets")
    commands = parser.add_subparsers(dest="dataset_command", required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="make label files from the published ones")
    names = prepare.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, command in COMMANDS.items():
        _add_prepare_parser(names, name, command)
    for name in _AS_PUBLISHED:
        _add_check_parser(names, name)
    listing.add_parser(commands)
    own_commands.add_parsers(commands)
    check.add_parsers(commands)


def _add_prepare_parser(names, name: str, command) -> None:
    parser = names.add_parser(name, help=command.help, description=command.help)
    listing.add_root(parser)
    parser.add_argument(
        "--workers", type=int, default=usable_cpus(), metavar="N", help="number of processes"
    )
    parser.add_argument(
        "--splits", nargs="+", choices=command.splits, default=command.splits, help="by default all"
    )
    for option, text in command.options.items():
        parser.add_argument(f"--{option.replace('_', '-')}", action="store_true", help=text)
    for option, text in command.values.items():
        parser.add_argument(f"--{option}", metavar="PATH", help=text)
    parser.set_defaults(run=_prepare)


def _add_check_parser(names, name: str) -> None:
    text = "nothing to prepare: say whether the published files are where they are read"
    parser = names.add_parser(name, help=text, description=text)
    listing.add_root(parser)
    parser.set_defaults(run=_check_published)


def _check_published(args) -> int:
    rows = listing.describe_all(args.root.expanduser())
    (row,) = [row for row in rows if row["name"].casefold() == args.name]
    if row["missing"]:
        raise FileNotFoundError(
            f"{args.root} lacks {', '.join(row['missing'])} of {row['name']}; unpack the published "
            "files there, as datasets/README.md shows"
        )
    lacks = listing.lacks(row)
    text = f"; missing: {lacks}" if lacks else ""
    sys.stdout.write(
        f"{args.name}: the files in {args.root} are read as they were published{text}\n"
    )
    return 0


def _prepare(args) -> int:
    command = COMMANDS[args.name]
    options = {option: getattr(args, option) for option in (*command.options, *command.values)}
    for split in args.splits:
        command.prepare(args.root, split, args.workers, **options)
    names = " and ".join(args.splits)
    sys.stdout.write(f"{args.name}: {names} prepared in {args.root}\n")
    return 0
