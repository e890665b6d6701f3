"""`rankseg-d2 attach-ranker`: a multi-label head for a trained model that has none."""

import os
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils.file_io import PathManager

from ..checkpoints import locate
from ..config import get_config
from ..engine import Checkpointer, class_names, describe, setup
from ..engine.attaching import better_scores, check_plain, ranking_config, split, train_head
from ..engine.checks import build_on_meta
from ..engine.features import cached_features, scored_by
from ..engine.trainer import changed
from ..files import write_bytes
from ..modeling.meta_arch.rankseg import RankSeg
from ..tables import text_table, write_tables
from ..tasks import IMAGE_TYPES
from .compare import row
from .kappa import load_model
from .sweep import Choice, kept_shares, sweep

KAPPA = 20  # or the number of classes, if that is smaller
_RECALLS = (10, 20)  # of the table, beside that at κ


def run(args: Namespace) -> int:
    """The subcommand; `args` are those of `report.cli`."""
    started = time.perf_counter()
    plain = get_config(args.config, [*args.set, "MODEL.WEIGHTS", args.weights])
    cfg = _checked_config(args, plain)
    setup(cfg, default_argument_parser().parse_args(["--config-file", args.config]))
    model = load_model(changed(cfg, "MODEL.WEIGHTS", args.weights))  # with a fresh head
    features = Path(args.features or Path(cfg.OUTPUT_DIR, "features"))
    weights = locate(args.weights, PathManager)[0]
    data = cached_features(plain, model, weights, features, args.images, args.gigabytes * 1e9)
    parts, head = split(data), model.ml_head
    found = train_head(cfg, head, model.ranker.loss, *parts, args.iterations, args.rate)
    scores = better_scores(head, parts[1], model.ranker.topk, model.score_weights)
    _save(changed(cfg, "MODEL.RANKSEG.SCORES", scores), model, args.weights)
    minutes = (time.perf_counter() - started) / 60
    sys.stdout.write(
        f"\nA head of {len(data.present):,} samples, mAP {found:.1f} on those held out, in "
        f"{minutes:.1f} minutes; the written config ranks by: {scores}.\n{_table(cfg, model)}\n"
        f"rankseg-d2 eval {cfg.OUTPUT_DIR}/config.yaml   # or predict, explore, kappa\n"
    )
    return 0


def _checked_config(args: Namespace, plain: CfgNode) -> CfgNode:
    """The config of the model with a head; raises what is wrong, before anything is computed."""
    model = check_plain(plain)
    folder = args.out or f"{os.path.normpath(plain.OUTPUT_DIR)}_ranker"
    kappa = min(KAPPA, model.num_classes) if args.kappa is None else args.kappa
    options = {"head": args.head, "loss": args.loss, "width": args.width}
    cfg = ranking_config(plain, model, folder, kappa=kappa, **options)
    if os.path.exists(cfg.MODEL.WEIGHTS):
        raise ValueError(
            f"{cfg.MODEL.WEIGHTS} exists; name another --out (with --features {folder}/features "
            "its features are used again), or remove it"
        )
    build_on_meta(cfg)
    return cfg


def _save(cfg: CfgNode, model: RankSeg, weights: str) -> None:
    """Write the checkpoint, and the config with its choice of scores."""
    description = describe(changed(cfg, "MODEL.WEIGHTS", weights))
    names = class_names(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, class_names=names, description=description)
    checkpointer.save("model_final")
    write_bytes(Path(cfg.OUTPUT_DIR, "config.yaml"), cfg.dump().encode())


def _table(cfg: CfgNode, model: RankSeg) -> str:
    """The plain model, and κ with each list, on the first data set of DATASETS.TEST."""
    name = next(iter(cfg.DATASETS.TEST), None)
    if name is None or MetadataCatalog.get(name).get("evaluator_type") not in IMAGE_TYPES:
        return "No table: DATASETS.TEST names no data set of images."
    cfg = changed(cfg, "DATASETS.TEST", (name,))
    kappa, num_classes = model.ranker.topk, model.num_classes
    rows = []
    sources = {"head": (1.0, 0.0), "masks": (0.0, 1.0), "both": model.score_weights}
    for source, weights in sources.items():
        choices = [Choice(kappa)] if rows else [Choice(num_classes), Choice(kappa)]
        with scored_by(model, weights):
            images, results = sweep(cfg, model, choices)
        lists = {"mAP": results[choices[-1]]["multilabel"]["mAP"]}
        for k in _RECALLS:
            if k < num_classes:
                shares, _ = kept_shares(images, replace(model.ranker, topk=k))
                lists[f"recall@{k}"] = shares["recall@k"]
        if not rows:
            own = row(results[choices[0]])
            rows.append({"": "plain"} | own | dict.fromkeys(lists, "-"))
        rows.append({"": f"κ = {kappa}, {source}"} | row(results[choices[-1]]) | lists)
    for one in rows:
        one.pop("ms per image")  # of the plain model it would have the time of the ranking
    write_tables(cfg.OUTPUT_DIR, "attached", {}, rows)
    return text_table(rows)
