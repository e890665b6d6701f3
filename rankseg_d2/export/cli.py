"""The options of `rankseg-d2 export`; what they need is imported when it runs."""

import argparse
import sys
from typing import Any

_EXPORT = """\
Write a trained model as one file for onnxruntime (.onnx) or for torch.export (.pt2), and beside it
NumPy code that prepares pictures and makes results. The file is compared with the model on two
sizes and two batches, and kept only if their numbers are the same. CONFIG is needed for weights
that do not say what model they are of.
"""
_EXAMPLES = """\
examples:
  rankseg-d2 export --weights model_best.safetensors
  rankseg-d2 export ade20k/panoptic/r50_rankseg --weights model.pkl --output r50.onnx
  rankseg-d2 export --weights model_best.safetensors --size 512 512 --format torch_export
"""


def add_export_parser(commands: Any) -> None:
    """Add `export` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "export", help="a trained model as a file for onnxruntime", description=_EXPORT,
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="a yaml file or a shipped config's name")
    add("--weights", required=True, metavar="FILE", help="the checkpoint")
    add("--output", metavar="OUT", help="the file to write (default: beside the weights)")
    add("--format", choices=("onnx", "torch_export"), default="onnx")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of the config")
    add("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"),
        help="the only size that the file takes (default: every multiple of 32)")
    add("--frames", type=int, metavar="T",
        help="of a clip, for models of videos (default: those of a window)")
    add("--tolerance", type=float, default=1e-3,
        help="how much a number may differ from the model's (default: 0.001)")
    add("--no-check", action="store_true", help="do not compare the file with the model")
    parser.set_defaults(run=_run)  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ..predict import Predictor
    from .exporting import export, postprocess_path
    from .formats import format_named

    suffix = format_named(args.format).suffix
    output = Path(args.output) if args.output else Path(args.weights).with_suffix(suffix)
    if args.config:
        predictor = Predictor.from_config(args.config, args.weights, opts=args.set, device="cpu")
    elif args.set:
        raise ValueError("--set changes keys of a config; name the CONFIG of the weights too")
    else:
        predictor = Predictor.from_checkpoint(args.weights, device="cpu")
    size = tuple(args.size) if args.size else None
    found = export(
        predictor, output, format=args.format, size=size, frames=args.frames,
        check=not args.no_check, tolerance=args.tolerance,
    )  # fmt: skip
    for name, value in found.items():
        sys.stdout.write(f"{name}: at most {value:.1e} from the model's\n")
    size = output.stat().st_size / 2**20
    sys.stdout.write(f"wrote {output} ({size:,.0f} MB) and {postprocess_path(output).name}\n")
    return 0
