"""The `rankseg-d2` command."""

import argparse
import sys

from . import __version__, doctor


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; the exit status of the process."""
    parser = argparse.ArgumentParser(
        prog="rankseg-d2", description="RankSeg for detectron2: tools around training and testing."
    )
    parser.add_argument("--version", action="version", version=f"rankseg_d2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor.add_parser(commands)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
