"""`rankseg-d2 kappa`: choose κ or the threshold by what they cost, and for a wanted recall."""

import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils.file_io import PathManager
from torch import nn

from ..checkpoints import check_storable, locate, read_checkpoint, rename, write_metadata
from ..config import get_config
from ..engine import Checkpointer, Trainer, check_run, class_names, setup
from ..engine.checks import build_on_meta
from ..engine.trainer import changed
from ..evaluation.build import ranks_categories
from ..files import write_image, write_json
from ..tables import main_metrics, text_table, write_tables
from ..tasks import VIDEO_TYPES
from .image_scores import ImageScores
from .plan import Plan, describe, plan
from .sweep import Choice, Results, sweep

SIZE = (960, 600)  # width and height of a plot
THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_STEPS = (1, 2, 3, 5, 7)  # of the grid of κ, in each power of ten
# (task, metric, its name in the table and in the plots)
_HEADLINES = (
    ("multilabel", "recall@k", "recall"),
    ("multilabel", "precision@k", "precision"),
    ("pixels", "recall", "pixel recall"),
    ("pixels", "precision", "pixel precision"),
    ("sem_seg", "mIoU", "mIoU"),
    ("panoptic_seg", "PQ", "PQ"),
    ("segm", "AP", "AP"),
    ("parsing", "APp", "APp"),
    ("time", "ms", "ms per image"),
)


def run(args: Namespace) -> int:
    """The subcommand; `args` are those of `report.cli`."""
    if args.write:
        if not args.weights or "://" in args.weights:
            raise ValueError("--write needs --weights with a local file, to store the rules in it")
        check_storable(args.weights)
    if args.scores:
        images, folder = ImageScores.load(args.scores), Path(args.scores).parent
    else:
        images, folder = _evaluate(args)
    planned = plan(images, args.recall, args.of)
    sys.stdout.write(f"\n{describe(planned)}")
    write_plan(planned, folder)
    if args.write:
        write_metadata(args.weights, calibration=planned.calibration.to_json())
        sys.stdout.write(f"Stored in {args.weights}.\n")
    sys.stdout.write(f"Files: {folder}\n")
    return 0 if planned.rules else 1


def _evaluate(args: Namespace) -> tuple[ImageScores, Path]:
    """One pass over the validation set: its scores, and the folder with all files."""
    if not args.config or not args.weights:
        raise ValueError(
            "give CONFIG and --weights FILE, or --scores FILE to choose again without the model"
        )
    cfg = trained_config(args, args.kappas)
    model, folder = start(cfg, args), Path(cfg.OUTPUT_DIR)
    topk = cfg.MODEL.RANKSEG.TOPK
    kappas = sorted(set(args.kappas or default_kappas(topk)))
    by_kappa = {kappa: Choice(kappa) for kappa in kappas}
    by_threshold = {value: Choice(topk, value) for value in sorted(args.thresholds or THRESHOLDS)}
    images, results = sweep(cfg, model, [*by_kappa.values(), *by_threshold.values()])
    images.save(folder / "scores.npz")
    for name, choices in (("kappa", by_kappa), ("threshold", by_threshold)):
        rows = {value: results[choice] for value, choice in choices.items()}
        sys.stdout.write(f"\n{write_curves(folder, name, rows)}\n")
    return images, folder


def trained_config(args: Namespace, kappas: Iterable[int] | None) -> CfgNode:
    """The config of a trained model that can be evaluated at these κ; files go to its kappa/."""
    cfg = get_config(args.config, [*args.set, "MODEL.WEIGHTS", args.weights])
    cfg.MODEL.TIMM.PRETRAINED = None  # the weights bring all
    check_kappa(cfg, kappas or ())
    # A folder of its own, for its config.yaml is not that of the training.
    cfg = changed(cfg, "OUTPUT_DIR", str(Path(cfg.OUTPUT_DIR, "kappa")))
    cfg.freeze()
    return cfg


def start(cfg: CfgNode, args: Namespace) -> nn.Module:
    """Begin the log of an evaluation; returns the model."""
    words = ["--config-file", args.config, "--eval-only", *args.set]
    setup(cfg, default_argument_parser().parse_args(words))
    return load_model(cfg)


def default_kappas(topk: int) -> list[int]:
    """About five numbers in each power of ten, up to `topk` and with it."""
    steps = (step * 10**power for power in range(len(str(topk))) for step in _STEPS)
    return [*(step for step in steps if step < topk), topk]


def check_kappa(cfg: CfgNode, kappas: Iterable[int]) -> None:
    """Raise what is wrong, before a model is built."""
    if not ranks_categories(cfg):
        raise ValueError(
            "the model of this config has no ranking head, so it has no κ to choose; give a config "
            "with MODEL.RANKSEG.FLAG True and USE_GT False, such as NAME_rankseg"
        )
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(
            f"κ is chosen on one validation set, but DATASETS.TEST names {len(cfg.DATASETS.TEST)}; "
            "add --set \"DATASETS.TEST=('NAME',)\""
        )
    check_run(cfg, default_argument_parser().parse_args(["--eval-only"]))
    (dataset,) = cfg.DATASETS.TEST
    if MetadataCatalog.get(dataset).get("evaluator_type") in VIDEO_TYPES:
        raise ValueError(
            f"κ is chosen on images, but {dataset} has videos; set DATASETS.TEST to images"
        )
    trained, topk = trained_kappa(cfg), cfg.MODEL.RANKSEG.TOPK
    for name, kappa in [("MODEL.RANKSEG.TOPK", topk), *(("--kappas", value) for value in kappas)]:
        if not 1 <= kappa <= min(trained, topk):
            reason = (
                f"{trained} is the κ that the model was trained with, and the temperature of "
                "higher ranks is not known"
                if trained <= topk
                else f"the config keeps {topk}; raise MODEL.RANKSEG.TOPK, up to {trained}"
            )
            raise ValueError(f"{name} {kappa} is not in [1, {min(trained, topk)}]: {reason}")


def trained_kappa(cfg: CfgNode) -> int:
    """The κ of MODEL.WEIGHTS, the number of ranks of its temperature; without one, all classes."""
    model = build_on_meta(cfg)
    if model.norm is None:
        return model.num_classes
    weights = read_checkpoint(locate(cfg.MODEL.WEIGHTS, PathManager)[0])["model"]
    rename(weights, model.state_dict())
    return len(weights["ml_norm.weight"]) - model.ml_norm.no_object


def load_model(cfg: CfgNode) -> nn.Module:
    """The model of a config with MODEL.WEIGHTS, in eval mode."""
    model = Trainer.build_model(cfg).eval()
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR, class_names=class_names(cfg))
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model


def write_curves(folder: Path, name: str, results: dict[float, Results]) -> str:
    """Write NAME.csv, .json and .png of the results at each κ or threshold; a short table."""
    rows = []
    for value, tasks in results.items():
        metrics = {
            f"{task}/{metric}": number
            for task, own in tasks.items()
            for metric, number in main_metrics(own).items()
        }
        rows.append({name: value} | metrics)
    write_tables(str(folder), name, {}, rows)
    table = [headlines(tasks) for tasks in results.values()]
    values = list(results)
    series = {
        short: (values, [row[short] for row in table])
        for task, _, short in _HEADLINES
        if short in table[0] and task != "time"
    }
    draw_curves(folder / f"{name}.png", series, f"Results by {name}", name, "percent")
    return text_table(
        [{name: f"{value:g}"} | row for value, row in zip(values, table, strict=True)]
    )


def headlines(tasks: Results) -> dict[str, float]:
    """The numbers that a printed table shows."""
    return {
        short: tasks[task][metric]
        for task, metric, short in _HEADLINES
        if metric in tasks.get(task, ())
    }


def write_plan(planned: Plan, folder: Path) -> None:
    """Write calibration.json, with the rules, and calibration.png: what is present against p."""
    content = {
        "calibration": planned.calibration.to_json(),
        "before": planned.before.to_json(),
        "after": planned.after.to_json(),
        "refused": list(planned.refused),
    }
    write_json(folder / "calibration.json", content, indent=1)
    series = {"perfect": ([0.0, 1.0], [0.0, 1.0])}
    for name, found in (("before", planned.before), ("after", planned.after)):
        series[name] = [one.probability for one in found.bins], [one.present for one in found.bins]
    title = "Calibration of the multi-label head"
    draw_curves(folder / "calibration.png", series, title, "probability", "share present")


def draw_curves(
    path: Path,
    series: dict[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    from ..drawing import plot_curves

    write_image(path, plot_curves(series, title, x_label, y_label, size=SIZE))
