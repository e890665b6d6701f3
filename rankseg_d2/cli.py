"""The `rankseg-d2` command."""

import argparse
import fnmatch
import io
import itertools
import json
import sys

from . import __version__, config_files, doctor
from .config_reference import key_reference
from .convert.cli import add_convert_parser
from .errors import INTERRUPTED, nearest, sentence, shows_tracebacks
from .export.cli import add_export_parser
from .predict.cli import add_pack_parser, add_predict_parser
from .report.cli import (
    add_analyze_parser,
    add_attach_parser,
    add_compare_parser,
    add_kappa_parser,
    add_profile_parser,
    add_report_parser,
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have letters that a terminal has not
            stream.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="rankseg-d2",
        description="RankSeg for detectron2: training, evaluation, and tools beside them.",
    )
    parser.add_argument("--version", action="version", version=f"rankseg_d2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor.add_parser(commands)
    configs = commands.add_parser(
        "configs", help="list the shipped configs, write one with all of its keys, or explain keys"
    )
    configs.add_argument(
        "pattern",
        nargs="?",
        default="",
        metavar="PATTERN|NAME",
        help="list only names that contain this, such as swin_l or ade20k/*_rankseg; of a whole "
        "name, or a yaml file, write the keys; with --keys, a word to search, such as SOLVER",
    )
    configs.add_argument(
        "--keys", action="store_true", help="write what each config key means, and its default"
    )
    configs.set_defaults(run=_show_configs)
    add_predict_parser(commands)
    add_pack_parser(commands)
    add_convert_parser(commands)
    add_export_parser(commands)
    add_kappa_parser(commands)
    add_compare_parser(commands)
    add_attach_parser(commands)
    add_report_parser(commands)
    add_analyze_parser(commands)
    add_profile_parser(commands)
    # The imports of these take seconds and need a working engine.
    if argv[:1] == ["dataset"]:
        from .data.checks import cli as data_cli

        data_cli.add_parser(commands)
        argv = data_cli.with_our_spelling(argv)
    else:
        commands.add_parser("dataset", help="prepare, check and describe data sets")
    if argv[:1] in (["train"], ["eval"]):
        from .engine.commands import add_parsers

        add_parsers(commands)
    else:
        commands.add_parser("train", help="train a config, or on own data one that is chosen")
        commands.add_parser("eval", help="evaluate a trained model")
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if shows_tracebacks():
            raise
        words = itertools.takewhile(lambda word: not word.startswith("-"), argv)
        sys.stderr.write(f"{parser.prog} {' '.join(words)}: error: {sentence(error)}\n")
        return 1


def _show_configs(args: argparse.Namespace) -> int:
    """Write the names that match: models, grouped by folder, then the parts of configs.

    Of one config: its yaml, in which all bases are resolved. With --keys: what the keys mean.
    """
    if args.keys:
        sys.stdout.write(key_reference(args.pattern))
        return 0
    known = config_files.shipped_names()
    is_model = args.pattern in known and not config_files.is_part(args.pattern)
    if is_model or args.pattern.endswith((".yaml", ".yml")):
        import yaml

        from .config import get_config

        keys = yaml.safe_load(get_config(args.pattern).dump())
        keys = json.loads(json.dumps(keys))  # equal lists are one object, which yaml would show
        sys.stdout.write(yaml.safe_dump(keys, allow_unicode=True, default_flow_style=None))
        return 0
    names = fnmatch.filter(known, f"*{args.pattern}*")
    if not names:
        near = ", ".join(nearest(args.pattern, known))
        sys.stderr.write(f"no config matches *{args.pattern}*; the nearest names are {near}\n")
        return 1
    names.sort(key=config_files.is_part)
    groups = [list(group) for _, group in itertools.groupby(names, _config_group)]
    sys.stdout.write("\n\n".join(map("\n".join, groups)) + "\n")
    return 0


def _config_group(name: str) -> str:
    return "parts" if config_files.is_part(name) else name.rpartition("/")[0]


if __name__ == "__main__":
    sys.exit(main())
