"""The options of `rankseg-d2 convert`; what they need is imported when it runs."""

import argparse
import sys
from typing import Any

_CONVERT = """\
Make a checkpoint of another library a file of this package, which says what model and which
classes it is of, for `rankseg-d2 predict`. CONFIG is the same model here. A folder of transformers'
Mask2Former or MaskFormer says itself what model it is; with CONFIG, what differs is told. Training
and evaluation need no conversion: MODEL.WEIGHTS may be such a file or folder as it is.
"""
_EXAMPLES = """\
examples:
  rankseg-d2 convert segformer.pth segformer.safetensors --config ade20k/semantic/segformer_b0
  rankseg-d2 convert L_16.npz vit_l.safetensors --config ade20k/semantic/segmenter_vit_l
  rankseg-d2 convert model_final.pth theirs.pth --config my.yaml --to mmsegmentation
  rankseg-d2 convert mask2former-swin-tiny-ade-semantic m2f.safetensors
  rankseg-d2 convert model_best.safetensors theirs --to transformers
"""


def add_convert_parser(commands: Any) -> None:
    """Add `convert` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "convert", help="checkpoints of other libraries, from and to", description=_CONVERT,
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("weights", metavar="FILE", help="the checkpoint, or a folder of transformers")
    add("output", metavar="OUT", help="the file to write: .safetensors; with --to .pth or a folder")
    add("--config", metavar="CONFIG", help="a yaml file or a shipped config's name")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of the config")
    add("--to", metavar="LIBRARY", help="write for this library, such as mmsegmentation")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .converting import run

    done = run(args.weights, args.output, args.config, args.set, args.to)
    files = done.path.rglob("*") if done.path.is_dir() else [done.path]
    size = sum(file.stat().st_size for file in files) / 2**20
    sys.stdout.write("".join(f"{note}\n" for note in done.notes))
    sys.stdout.write(f"wrote {done.path} ({size:,.0f} MB)\n")
    return 0
