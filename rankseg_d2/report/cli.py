"""Options of `rankseg-d2 kappa`, `compare`, `attach-ranker`, `report`, `analyze`, `profile`.

Imports are made when they run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

UNITS = ("categories", "pixels")
RECALLS = (0.95, 0.99)

_KAPPA = """\
Run a trained model once over the validation set of CONFIG, and evaluate it at many κ and many
thresholds from the same network outputs. Choose the smallest κ, and the highest threshold, that
keep a wanted share of an image's categories on new images, with a guarantee (conformal risk
control). Fit a calibration of the head's probabilities. Files go to OUTPUT_DIR/kappa.
"""
_EXAMPLES = """\
examples:
  rankseg-d2 kappa shapes/panoptic/r10t_rankseg --weights model_final.pth
  rankseg-d2 kappa my.yaml --weights model_final.pth --recall 0.9 0.95 --of pixels --write
  rankseg-d2 kappa --scores output/kappa/scores.npz --recall 0.98
"""


_ATTACH = """\
Give a trained model a multi-label head: its weights stay as they are, its features of the training
images are computed once, and a head is trained on these in minutes. Written are a checkpoint and a
config of a model that ranks, and a table of both models on the validation set.
"""

_ANALYZE = """\
Count the parameters, multiply-adds and activations of a config's model, module by module, and
measure the time and the memory of one prediction on this device, with random weights.
"""

_PROFILE = """\
Time the stages of predictions, or of training steps, on the images of CONFIG's data set: loading,
backbone, decoders, ranking, losses and results. With random weights, unless there are others.
"""


def add_kappa_parser(commands: Any) -> None:
    """Add `kappa` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "kappa",
        help="choose κ or the threshold for a wanted recall",
        description=_KAPPA,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="a yaml file, or the name of a shipped config")
    add("--weights", metavar="FILE", help="the trained model: .pth or .safetensors")
    add("--scores", metavar="FILE",
        help="choose again from the scores.npz of an earlier run, without model and images")
    add("--recall", nargs="+", type=_share, default=RECALLS, metavar="R",
        help="wanted recalls, between 0 and 1; by default %(default)s")
    add("--of", nargs="+", choices=UNITS, default=UNITS[:1],
        help="whose recall: of an image's categories (the default), of its pixels, or both")
    add("--kappas", nargs="+", type=int, metavar="K",
        help="evaluate at these κ; by default about five in each power of ten, up to the trained")
    add("--thresholds", nargs="+", type=_share, metavar="T",
        help="evaluate at these thresholds; by default ten from 0.001 to 0.9")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of the config")
    add("--write", action="store_true",
        help="store calibration and rules in the file of --weights, where a predictor finds them")
    parser.set_defaults(run=_run_kappa)  # fmt: skip


def add_compare_parser(commands: Any) -> None:
    """Add `compare` to the subcommands of `rankseg-d2`."""
    about = (
        "Evaluate a trained model at the κ of its training, at smaller ones, above a probability, "
        "and with the categories that are present (the oracle), from the same network outputs: one "
        "table of mIoU, PQ, recall and time."
    )
    parser = commands.add_parser(
        "compare", help="one table of a model at several κ, and with the oracle", description=about
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a yaml file, or the name of a shipped config")
    add("--weights", metavar="FILE", required=True, help="the trained model")
    add("--kappas", nargs="+", type=int, metavar="K", help="smaller κ; by default 20 and 10")
    add("--threshold", type=_share, default=0.2, metavar="T",
        help="keep the categories above this probability, by default %(default)s")
    add("--beside", nargs="+", metavar=("FILE", "RUN"),
        help="rows from the json of a study, below the others: of these runs, or of all")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of the config")
    parser.set_defaults(run=_run_compare)  # fmt: skip


def _run_compare(args: argparse.Namespace) -> int:
    from .compare import run

    return run(args)


def add_attach_parser(commands: Any) -> None:
    """Add `attach-ranker` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "attach-ranker", help="train a ranking head for a trained model", description=_ATTACH
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="that of the trained model: a yaml file, or a name")
    add("--weights", metavar="FILE", required=True, help="the trained model")
    add("--out", metavar="FOLDER", help="by default OUTPUT_DIR of CONFIG with _ranker behind it")
    add("--kappa", type=int, metavar="K", help="κ; by default 20, or all if there are fewer")
    add("--head", default="encoder", metavar="NAME", help="by default %(default)s")
    add("--loss", default="asymmetric", metavar="NAME", help="by default %(default)s")
    add("--width", type=_count_or_none, default=0, metavar="N",
        help="of the head; by default twice the channels of its input, at most 512")
    add("--images", type=_count, default=4000, metavar="N",
        help="most training images, each once; by default %(default)s")
    add("--gigabytes", type=_positive, default=2.0, metavar="G",
        help="most memory of the features, with fewer images if need be; by default %(default)g")
    add("--iterations", type=_count, default=1000, metavar="N",
        help="of the head's training, with 32 images each; by default %(default)s")
    add("--rate", type=_positive, default=0.001, metavar="R",
        help="the learning rate, by default %(default)g")
    add("--features", metavar="FOLDER",
        help="where features are kept, to be used again; by default FOLDER of --out/features")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of the config")
    parser.set_defaults(run=_run_attach)  # fmt: skip


def _run_attach(args: argparse.Namespace) -> int:
    from .attach import run

    return run(args)


def add_analyze_parser(commands: Any) -> None:
    """Add `analyze` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "analyze",
        help="count parameters and FLOPs of a model, and measure its time and memory",
        usage="%(prog)s CONFIG [KEY VALUE ...] [option ...]",
        description=_ANALYZE,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a yaml file, or the name of a shipped config")
    add("opts", nargs="*", metavar="KEY VALUE", help="other keys of the config")
    add("--size", nargs=2, type=_count, metavar=("HEIGHT", "WIDTH"),
        help="of the image; by default the crops of the training, or what an evaluation makes of "
        "an image of 480 x 640")
    add("--frames", type=_count, default=1, metavar="T",
        help="of a clip, for models of videos; by default 1")
    add("--depth", type=_count, default=2, metavar="N",
        help="show modules up to this depth; by default %(default)s")
    add("--repeats", type=_count_or_none, default=5, metavar="N",
        help="predictions of which the median time is taken, by default %(default)s; 0: only count")
    add("--json", action="store_true", help="write json")
    parser.set_defaults(run=_run_analyze)  # fmt: skip


def _run_analyze(args: argparse.Namespace) -> int:
    from .analysis import run

    return run(args)


def add_profile_parser(commands: Any) -> None:
    """Add `profile` to the subcommands of `rankseg-d2`."""
    parser = commands.add_parser(
        "profile",
        help="where the time of a prediction or a training step goes, stage by stage",
        usage="%(prog)s CONFIG [KEY VALUE ...] [option ...]",
        description=_PROFILE,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a yaml file, or the name of a shipped config")
    add("opts", nargs="*", metavar="KEY VALUE", help="other keys of the config")
    add("--train", action="store_true", help="training steps; by default predictions")
    add("--weights", metavar="FILE", help="a trained model")
    add("--repeats", type=_count, default=5, metavar="N",
        help="steps of which medians are taken, by default %(default)s, after two more")
    add("--trace", metavar="FILE",
        help="write one more step as a trace, a json file for Perfetto or Chrome")
    add("--json", action="store_true", help="write json")
    parser.set_defaults(run=_run_profile)  # fmt: skip


def _run_profile(args: argparse.Namespace) -> int:
    from .profiling import run

    return run(args)


def _run_kappa(args: argparse.Namespace) -> int:
    from .kappa import run

    return run(args)


def add_report_parser(commands: Any) -> None:
    """Add `report` to the subcommands of `rankseg-d2`."""
    about = (
        "Write a page that shows where a model is right and where it fails: results and curves, "
        "the error split, the ranking, all classes, confused pairs, the worst and best images. "
        "It is one file of HTML that opens without a network, made from the files that training "
        "and evaluation have written."
    )
    parser = commands.add_parser("report", help="make a page of a run", description=about)
    parser.add_argument("folder", metavar="RUN", help="OUTPUT_DIR of a training or evaluation")
    parser.add_argument("--out", metavar="FILE", help="by default RUN/report.html")
    parser.set_defaults(run=_run_report)


def _run_report(args: argparse.Namespace) -> int:
    from .page import read_run, write_page

    page = write_page(read_run(args.folder), args.out or Path(args.folder, "report.html"))
    sys.stdout.write(f"{page} ({page.stat().st_size / 1e6:.1f} MB)\n")
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} on")
    return int(text)


def _count_or_none(text: str) -> int:
    return _count(text, 0)
