"""`rankseg-d2 train` and `rankseg-d2 eval`."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from .._yaml import BASE_KEY, settable_keys
from ..config_files import parse_opts
from ..data.checks.fingerprint import Fingerprint, fingerprint
from ..data.own.description import read_own_data
from ..data.prepare.processes import usable_cpus
from ..files import write_bytes
from .choosing import Choice, Machine, choose
from .ending import end_in_a_sentence
from .launch import count_processes
from .start import start

FILE = "train.yaml"  # in the run folder
_KEY = re.compile(r"[A-Z][A-Z0-9_.]*(=.*)?")  # of KEY VALUE pairs; names of configs are not so


def add_parsers(commands: Any) -> None:
    """Add `train` and `eval` to the subcommands of `rankseg-d2`."""
    for name, text in (
        ("train", "train a config, or on own data a config that is chosen for them"),
        ("eval", "evaluate a trained model: train_net.py --eval-only"),
    ):
        parser = commands.add_parser(
            name,
            help=text,
            usage="%(prog)s [option ...] [CONFIG] [KEY VALUE ...]",
            description=f"{text[0].upper()}{text[1:]}. CONFIG is a yaml or the name of a shipped "
            "config, as in --config-file; it and the keys come last.",
            parents=[default_argument_parser()],
            conflict_handler="resolve",  # of its --help
        )
        parser.set_defaults(run=_run, eval_only=name == "eval", data=None)
        if name == "train":
            parser.add_argument(
                "--data",
                metavar="FILE",
                help="a yaml of own data (docs/own_data.md); without CONFIG, one is chosen for it",
            )


def _run(args: argparse.Namespace) -> int:
    end_in_a_sentence(f"rankseg-d2 {args.command}", lambda: _start(args))
    return 0


def _start(args: argparse.Namespace) -> None:
    config, args.opts = _split(args.opts)
    if config and args.config_file:
        raise ValueError(f"give one config: --config-file {args.config_file}, or {config}")
    args.config_file = args.config_file or config
    if args.data is None and not args.config_file:
        more = ", or --data FILE, for which one is chosen" if args.command == "train" else ""
        raise ValueError(f"give a config: a yaml file, or the name of a shipped one{more}")
    if args.data is None:
        start(args)
        return
    args.data = os.path.abspath(os.path.expanduser(args.data))
    if args.config_file:
        args.opts = ["DATASETS.FILES", [args.data], *args.opts]
        start(args)
        return
    _start_chosen(args)


def _split(opts: list[str]) -> tuple[str, list[str]]:
    """The config, if the first word is one, and the KEY VALUE pairs."""
    if not opts or _KEY.fullmatch(opts[0]) or opts[0].startswith("-"):
        return "", opts
    return opts[0], opts[1:]


def _start_chosen(args: argparse.Namespace) -> None:
    """Train what is chosen for the data, or with --resume what was chosen for the run."""
    given = parse_opts(args.opts)
    folder = given.get("OUTPUT_DIR", f"output/{read_own_data(args.data).name}")
    if args.resume and os.path.isfile(os.path.join(folder, FILE)):
        args.config_file = os.path.join(folder, FILE)
        start(args)
        return
    data, is_first = fingerprint(args.data), _is_first(args)
    said = [_whole(given.get(key)) for key in ("SOLVER.MAX_ITER", "MODEL.RANKSEG.TOPK")]
    choice = choose(data, this_machine(args), *said)
    if is_first:
        sys.stdout.write(describe(data, choice, given))
        sys.stdout.flush()
    keys = {"DATASETS.FILES": [args.data]} | choice.keys | given
    args.config_file, args.opts = choice.config, [word for pair in keys.items() for word in pair]

    def write(cfg: CfgNode) -> None:
        if is_first:
            write_chosen(Path(cfg.OUTPUT_DIR, FILE), cfg, choice.config, keys)

    start(args, once_checked=write)


def _whole(value: Any) -> int | None:
    """A number of the command line; what is none is refused later, when the config is read."""
    return int(value) if re.fullmatch("0*[1-9][0-9]{0,9}", str(value)) else None


def _is_first(args: argparse.Namespace) -> bool:
    """Whether this is the first of all processes, on all machines."""
    return args.machine_rank == 0 and os.environ.get("RANK", "0") == "0"


def this_machine(args: argparse.Namespace) -> Machine:
    """What the processes of a training may use here."""
    processes = int(os.environ.get("WORLD_SIZE", 0)) or count_processes(args)
    memory = 0.0
    if torch.cuda.is_available():
        all_bytes = [torch.cuda.get_device_properties(i).total_memory
                     for i in range(torch.cuda.device_count())]  # fmt: skip
        memory = min(all_bytes) / 2**30
    return Machine(processes, memory, usable_cpus())


def describe(data: Fingerprint, choice: Choice, given: dict[str, Any]) -> str:
    """The data, what is chosen for them and why, as lines for a terminal."""
    counted = "" if data.counted == data.images else f" ({data.counted:,} of them were read)"
    lines = [
        f"{data.name}: {data.task}, {data.images:,} images{counted} for training, "
        f"{data.classes} classes, mostly {data.width} x {data.height} pixels"
    ]
    width = max(map(len, choice.why))
    lines += [f"  {what:{width}}  {reason}" for what, reason in choice.why.items()]
    if given:
        lines.append(f"  but you have set {', '.join(given)}")
    if data.faults:
        lines.append(f"  {data.faults} faults in the files: `rankseg-d2 dataset check` lists them")
    path = os.path.join(given.get("OUTPUT_DIR", choice.keys["OUTPUT_DIR"]), FILE)
    lines.append(f"  the config is written to {path}; KEY VALUE pairs change any key of it")
    return "\n".join(lines) + "\n"


def write_chosen(path: Path, cfg: CfgNode, base: str, keys: dict[str, Any]) -> None:
    """Write the config of a run: its base, and the values that it has for these keys."""
    known, content = settable_keys(cfg), {BASE_KEY: base}
    for name in keys:
        *sections, last = name.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
        value = known[name].value
        inner[last] = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_bytes(path, text.encode())
