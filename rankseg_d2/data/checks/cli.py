"""`rankseg-d2 dataset`: list and prepare public data sets, check and describe any data set."""

import sys
from pathlib import Path
from typing import Any

from ..datasets import COMMANDS, data_root
from ..own import commands as own_commands
from ..prepare.processes import usable_cpus
from . import check, listing


def add_parser(commands: Any) -> None:
    """Add `dataset` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser("dataset", help="describe, check and prepare data sets")
    commands = parser.add_subparsers(dest="dataset_command", required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="make label files from the published ones")
    names = prepare.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, command in COMMANDS.items():
        _add_prepare_parser(names, name, command)
    listing.add_parser(commands)
    own_commands.add_parsers(commands)
    check.add_parsers(commands)


def _add_prepare_parser(names, name: str, command) -> None:
    parser = names.add_parser(name, help=command.help, description=command.help)
    parser.add_argument(
        "--root",
        type=Path,
        default=data_root(),
        metavar="DIR",
        help="the folder of all data sets, by default DETECTRON2_DATASETS, else ./datasets",
    )
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


def _prepare(args) -> int:
    command = COMMANDS[args.name]
    options = {option: getattr(args, option) for option in (*command.options, *command.values)}
    for split in args.splits:
        command.prepare(args.root, split, args.workers, **options)
    names = " and ".join(args.splits)
    sys.stdout.write(f"{args.name}: {names} prepared in {args.root}\n")
    return 0
