"""The `rankseg-d2` command."""

import argparse
import sys

from . import __version__, doctor


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; the exit status of the process."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="rankseg-d2", description="RankSeg for detectron2: tools around training and testing."
    )
    parser.add_argument("--version", action="version", version=f"rankseg_d2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor.add_parser(commands)
    if argv[:1] == ["dataset"]:  # its imports take seconds, and need an engine that works
        from .data.checks import cli as data_cli

        data_cli.add_parser(commands)
    else:
        commands.add_parser("dataset", help="prepare, check and describe data sets")
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
