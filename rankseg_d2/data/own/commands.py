"""`rankseg-d2 dataset init` and `convert`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from ..._yaml import read_yaml
from ...files import write_bytes
from .convert import convert
from .description import OwnData, parse_own_data
from .proposal import FORMATS, propose


def add_parsers(commands: Any) -> None:
    """Add `init` and `convert` to the subcommands of `rankseg-d2 dataset`."""
    init = commands.add_parser(
        "init", help="write the yaml of an own data set, from what a folder holds"
    )
    init.add_argument("folder", type=Path, help="with images and labels")
    init.add_argument("--output", type=Path, metavar="FILE",
                      help="the yaml, by default FOLDER/<name of the folder>.yaml")
    init.set_defaults(run=_init)
    parser = commands.add_parser(
        "convert", help="write label images, or a COCO instance json, of labels in another format"
    )
    parser.add_argument("format", choices=FORMATS, help="of the labels")
    parser.add_argument("source", type=Path, help="a folder, or a yaml (docs/own_data.md)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER",
                        help="a new folder; images are not copied")
    parser.add_argument("--task", choices=("semantic", "instances"), default="semantic",
                        help="of polygons: label images (the default), or objects in a json")
    parser.add_argument("--background", default="background", metavar="NAME",
                        help="pixels in no polygon: a class (by default background), or `ignore`")
    parser.add_argument("--workers", type=int, metavar="N",
                        help="number of processes, by default the fastest")
    parser.set_defaults(run=_convert)


def _init(args: argparse.Namespace) -> int:
    folder = args.folder.expanduser()
    proposal = propose(folder)
    path = args.output or folder / f"{proposal.content['name']}.yaml"
    content = proposal.content
    if path.parent.resolve() != folder.resolve():
        content = _moved(content, folder, path.parent)
    if path.exists():
        raise FileExistsError(f"{path} exists and is not overwritten; remove it, or name another "
                              "file: --output FILE")
    parse_own_data(dict(content), path.resolve())
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_bytes(path, text.encode())
    sys.stdout.write(
        f"found: {proposal.found}\nwrote {path}:\n\n{text}\nto edit: {proposal.edit}\n"
        f"then: rankseg-d2 dataset check {path}\n"
    )
    return 0


def _moved(content: dict, folder: Path, to: Path) -> dict:
    """The content of a yaml of `folder` for a yaml in the folder `to`."""

    def move(value):
        if isinstance(value, dict):
            return {key: move(part) for key, part in value.items()}
        is_path = isinstance(value, str) and value != "none"
        return os.path.relpath(folder / value, to) if is_path else value

    paths = {"images", "labels", "splits", "yolo"} & content.keys()
    return content | {key: move(content[key]) for key in paths}


def _convert(args: argparse.Namespace) -> int:
    source = args.source.expanduser()
    is_yaml = source.suffix in (".yaml", ".yml")
    path = source if is_yaml else source / "data.yaml"
    content = read_yaml(str(source)) if is_yaml else propose(source, args.format).content
    content = _with_task(content, args)
    data = parse_own_data(content, path.resolve())
    found = _format(data)
    if found != args.format:
        raise ValueError(f"{source} has labels of the format {found}, not {args.format}; write "
                         f"`rankseg-d2 dataset convert {found}`")
    written = convert(data, args.output.expanduser(), args.workers)
    sys.stdout.write(f"wrote {written}\nthen: rankseg-d2 dataset check {written}\n")
    return 0


def _with_task(content: dict, args: argparse.Namespace) -> dict:
    """The description with the task of the command line, where the labels are polygons."""
    if args.format == "rgb":
        return content
    content = {key: value for key, value in content.items() if key not in ("task", "background")}
    more = {"task": args.task}
    return content | more | ({"background": args.background} if args.task == "semantic" else {})


def _format(data: OwnData) -> str:
    """The format of the labels, as the command line names it."""
    shapes = {"json": "coco", "": "rgb" if data.values.by_color else "label images"}
    return shapes.get(data.splits[0].shapes, data.splits[0].shapes)
