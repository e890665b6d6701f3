"""The options of `rankseg-d2 predict` and `pack`; what they need is imported when they run."""

import argparse
import os
from typing import Any

from ..config_ranges import FLOAT_TYPES

_PREDICT = """\
Segment images with a trained model. SOURCE is an image, a folder (whose folders are mirrored in
--out), a pattern such as 'photos/**/*.jpg', a video, or a folder or pattern of videos. --save says
which files each image gets.
"""
_EXAMPLES = """\
examples:
  rankseg-d2 predict photos --weights model_best.safetensors --out out
  rankseg-d2 predict photos --weights model_best.safetensors --out out --deny person --topk 10
  rankseg-d2 predict photos --weights model_best.safetensors --out out --continue --shard 2/8
"""
FILES = ("label_png", "overlay", "coco", "panoptic_png", "categories", "explore")


def add_predict_parser(commands: Any) -> None:
    """Add `predict` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "predict", help="segment images with a trained model", description=_PREDICT,
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("source", metavar="SOURCE", help="an image, a folder, a pattern in quotes, or a video")
    add("--weights", required=True, metavar="FILE",
        help="a checkpoint of this package, or with --config any that fits it")
    add("--config", metavar="CONFIG", help="of weights that do not say what model they are of")
    add("--out", metavar="DIR", help="where the files go; needed unless --json is given")
    add("--save", nargs="+", choices=FILES, metavar="FILES", default=["label_png", "overlay"],
        help=f"the files of each image: {', '.join(FILES)} (default: the first two)")
    add("--own-ids", action="store_true",
        help="label_png: the data set's own ids instead of class numbers")
    add("--video", action="store_true", help="SOURCE is a folder or pattern of a video's frames")
    add("--json", action="store_true", help="write one line of json per image to the output")
    add("--batch", type=_count, default=1, help="images of one size that run together")
    add("--threads", type=_count, default=2, help="that decode images, and that write files")
    add("--device", default="auto", help="cpu, cuda, cuda:1; by default a GPU if there is one")
    add("--dtype", choices=FLOAT_TYPES, help="of inference (default: MODEL.DTYPE)")
    add("--allow", nargs="+", metavar="NAME", help="the only classes that may be found")
    add("--deny", nargs="+", default=[], metavar="NAME", help="classes that may not be found")
    add("--prior", nargs="+", type=_factor, default=[], metavar="NAME=FACTOR",
        help="factors of the odds of classes, such as dog=3")
    add("--topk", type=_count, help="keep so many categories")
    add("--threshold", type=float, help="keep categories whose probability is above this")
    add("--recall", type=float, help="keep what `rankseg-d2 kappa --write` found necessary")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--continue", dest="go_on", action="store_true",
                       help="leave out images and videos whose files exist")
    group.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add("--shard", type=_shard, metavar="I/N",
        help="part I of N of the images, or of several videos; by itself under torchrun")
    parser.set_defaults(run=_run_predict)  # fmt: skip


def add_pack_parser(commands: Any) -> None:
    """Add `pack` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "pack", help="make the small file to predict with, out of a run",
        description="Write the weights and all that a prediction needs as .safetensors: the best "
                    "checkpoint of a run's folder, else the last one; or of one checkpoint.",
    )  # fmt: skip
    parser.add_argument("run_folder", metavar="RUN", help="the OUTPUT_DIR of a training, or a .pth")
    parser.add_argument("--output", metavar="FILE",
                        help="by default model_best.safetensors in the folder")
    parser.set_defaults(run=_run_pack)


def _run_predict(args: argparse.Namespace) -> int:
    from .command import run

    if not args.out and not args.json:
        raise ValueError("give --out DIR for files, or --json for lines of json")
    return run(args)


def _run_pack(args: argparse.Namespace) -> int:
    import sys

    from ..engine import pack

    path = pack(args.run_folder, args.output)
    sys.stdout.write(f"wrote {path} ({os.path.getsize(path) / 2**20:,.0f} MB)\n")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _factor(text: str) -> tuple[str, float]:
    name, _, factor = text.rpartition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FACTOR, such as dog=3") from None


def _shard(text: str) -> tuple[int, int]:
    part, _, count = text.partition("/")
    if part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count):
        return int(part), int(count)
    raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 2/8")
