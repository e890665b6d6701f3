"""Start a training or an evaluation: what train_net.py and `rankseg-d2 train` and `eval` share."""

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..config import get_config
from .checkpointer import Checkpointer
from .checks import check_run, class_names
from .console import log_results
from .launch import launch
from .result_files import write_results
from .run_folder import last_checkpoint
from .trainer import Trainer, setup

logger = logging.getLogger(__name__)


def start(args: Namespace, once_checked: Callable[[CfgNode], None] = lambda cfg: None) -> None:
    """Run what `args` say, as detectron2's default_argument_parser parses them.

    `once_checked(cfg)` is called before any process is started, if nothing is wrong.
    """
    cfg = read_config(args)
    check_run(cfg, args)
    once_checked(cfg)
    launch(train_or_evaluate, args)


def read_config(args: Namespace) -> CfgNode:
    """The config of a run; an evaluation has trained weights and needs no others."""
    cfg = get_config(args.config_file, args.opts)
    if args.eval_only:
        cfg.MODEL.TIMM.PRETRAINED = None
    return cfg


def train_or_evaluate(args: Namespace) -> Any:
    """The results of a training or evaluation, in each of its processes."""
    cfg = read_config(args)
    cfg.freeze()
    setup(cfg, args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    """Results of MODEL.WEIGHTS, or with `resume` of the run's last checkpoint."""
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR, class_names=class_names(cfg))
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    _check_ranks(model, checkpointer.file_ranks)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        last = last_checkpoint(cfg.OUTPUT_DIR) if resume else None
        write_results(cfg, results, os.path.basename(last or cfg.MODEL.WEIGHTS))
        log_results(cfg, results)
        verify_results(cfg, results)
    return results


def _check_ranks(model: Any, file_ranks: int | None) -> None:
    """Warn of ranks whose temperature is in no file, and so was never trained."""
    norm = getattr(model, "ml_norm", None)
    if norm is not None and file_ranks is not None and model.ranker.topk > file_ranks:
        logger.warning(
            "MODEL.RANKSEG.TOPK is %d, but MODEL.WEIGHTS was trained with %d: the temperature of "
            "the other ranks was never trained; set TOPK to at most %d",
            model.ranker.topk, file_ranks, file_ranks,
        )  # fmt: skip
