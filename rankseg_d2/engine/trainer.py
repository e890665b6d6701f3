"""The trainer: detectron2's DefaultTrainer with AMP types, accumulation and an exact resume."""

import contextlib
import logging
import os
import weakref
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    TrainerBase,
    create_ddp_model,
    default_setup,
)
from detectron2.engine import hooks as d2_hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .. import __version__, engine_name
from .._trainer_steps import construct
from ..data.loading.loader import (
    ResumableLoader,
    batch_size_per_rank,
    build_test_loader,
    build_train_loader,
)
from ..errors import short
from ..evaluation import build_evaluator, check_evaluation
from ..modeling.passes import in_passes
from .checkpointer import Checkpointer
from .checks import check_datasets, check_num_classes, class_names
from .console import ProgressLine, log_config, log_data, log_model, log_results, set_up_console
from .ending import Interrupt, hide_tracebacks
from .hooks import hooks_after_evaluation, hooks_of_run_folder
from .loggers import build_loggers
from .optimizer import build_optimizer
from .packing import PACKED, describe, pack
from .result_files import write_results
from .run_folder import check_room, check_writable, lock, what_is_whole, writing
from .scheduler import build_lr_scheduler
from .step_trainer import WRITE_PERIOD, StepTrainer

logger = logging.getLogger(__name__)

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def setup(cfg: CfgNode, args: Namespace) -> None:
    """detectron2's default_setup, for our logs too; `args.config_file` may be a shipped name."""
    _take_output_dir(cfg, for_training=not getattr(args, "eval_only", False))
    set_up_console(cfg.OUTPUT_DIR)
    head = "rankseg_d2 %s on the %s engine, torch %s, %d x %s"
    number, device = comm.get_world_size(), cfg.MODEL.DEVICE
    logger.info(head, __version__, engine_name(), torch.__version__, number, device)
    if args.config_file:
        log_config(cfg, args.config_file, getattr(args, "opts", None) or [])
    if not os.path.isfile(args.config_file):
        logger.info("config_file=%r", args.config_file)
        args = Namespace(**vars(args))
        del args.config_file  # detectron2 would open it, only to log its text
    with writing(cfg.OUTPUT_DIR, cfg.OUTPUT_DIR):
        default_setup(cfg, args)
    for name in ("detectron2", "rankseg_d2", "fvcore"):
        hide_tracebacks(logging.getLogger(name))


def _take_output_dir(cfg: CfgNode, for_training: bool = True) -> None:
    """Raise where OUTPUT_DIR cannot be written, or is another training's; else hold it."""
    if comm.is_main_process():
        check_writable(cfg.OUTPUT_DIR)
        if for_training:
            lock(cfg.OUTPUT_DIR)


class Trainer(DefaultTrainer):
    """Trains what a config says; call `resume_or_load`, then `train`.

    Override the build_* methods to change a part (`construct` calls them, and in what order). A
    `build_train_loader` of your own resumes exactly if it returns
    `rankseg_d2.engine.build_train_loader(cfg, mapper=...)`.
    """

    _is_between_steps = False  # so that a checkpoint is exact

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # not super(): the real detectron2's has no steps to override
        construct(self, cfg)
        log_model(self.model)
        log_data(self.cfg, _length(self.data_loader))

    def prepare_cfg(self, cfg: CfgNode) -> CfgNode:
        """The config to train by; raises the errors that need neither model nor data."""
        _take_output_dir(cfg)
        for name in ("detectron2", "rankseg_d2"):
            if not logging.getLogger(name).isEnabledFor(logging.INFO):
                setup_logger(name=name)
        check_datasets(cfg)
        check_num_classes(cfg)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        if cfg.TEST.AUG.ENABLED:
            logger.info("TEST.AUG is for --eval-only; evaluations during the training go without")
            cfg = changed(cfg, "TEST.AUG.ENABLED", False)
        batch_size_per_rank(cfg)
        return cfg

    def check_parts(self, cfg: CfgNode, model: nn.Module) -> None:
        """Raise now what would end the training at its first evaluation, such as missing files."""
        in_passes(cfg, model)
        if comm.is_main_process():
            check_room(cfg.OUTPUT_DIR, model, has_average=cfg.SOLVER.EMA.DECAY > 0)
        for name in cfg.DATASETS.TEST:
            self.build_test_loader(cfg, name)
            with contextlib.suppress(NotImplementedError):  # of a trainer that evaluates nothing
                check_evaluation(self.build_evaluator(cfg, name))
        check_num_classes(cfg)  # once more: some data sets name their classes when they are read

    def wrap_model(self, cfg: CfgNode, model: nn.Module) -> nn.Module:
        on_cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"
        devices = {"device_ids": None} if on_cpu else {}  # detectron2 would name a GPU
        return create_ddp_model(model, broadcast_buffers=False, **devices)

    def build_step_trainer(
        self,
        cfg: CfgNode,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: Optimizer,
    ) -> StepTrainer:
        device = torch.device(cfg.MODEL.DEVICE)
        return StepTrainer(
            model,
            data_loader,
            optimizer,
            device=device,
            seed=comm.shared_random_seed() if cfg.SEED < 0 else cfg.SEED,
            amp_dtype=amp_dtype(cfg, device),
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
            fit_memory=cfg.SOLVER.FIT_MEMORY,
            max_iter=cfg.SOLVER.MAX_ITER,
            average_decay=cfg.SOLVER.EMA.DECAY,
        )

    def build_checkpointer(self, cfg: CfgNode, model: nn.Module) -> Checkpointer:
        trainer = weakref.proxy(self)  # the trainer is to be freed without the garbage collector
        names, description = class_names(cfg), describe(cfg)
        return Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            class_names=names,
            description=description,
            keep=cfg.SOLVER.KEEP_CHECKPOINTS,
            average=self._trainer.average,
            trainer=trainer,
        )

    def state_dict(self) -> dict[str, Any]:
        # After training, `iter` is one past the last iteration that was done.
        return super().state_dict() | {"iteration": min(self.iter, self.max_iter - 1)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if type(state_dict["iteration"]) is not int or state_dict["iteration"] < 0:
            raise ValueError(f"its iteration is {short(state_dict['iteration'])}")
        super().load_state_dict(state_dict)

    def build_hooks(self) -> list[HookBase]:
        """detectron2's, after the evaluation those that read its results, and the run folder's."""
        built = super().build_hooks()
        kinds = [isinstance(hook, d2_hooks.EvalHook) for hook in built]
        after = kinds.index(True) + 1
        built[after - 1] = d2_hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate)
        built[after:after] = hooks_after_evaluation(self.cfg, self.checkpointer)
        description = getattr(self.checkpointer, "description", None)
        return built + hooks_of_run_folder(self.cfg, description)

    def build_writers(self) -> list[EventWriter]:
        """detectron2's, with a shorter line on the console, and those of LOGGERS."""
        writers = super().build_writers()
        others = [writer for writer in writers if not isinstance(writer, CommonMetricPrinter)]
        line = ProgressLine(self.max_iter, torch.device(self.cfg.MODEL.DEVICE))
        return [line, *others, *build_loggers(self.cfg)]

    def train(self) -> Any:
        """detectron2's; Ctrl-C ends it after a whole step, with a checkpoint to go on from.

        At its end the model has the average of SOLVER.EMA, as the last checkpoint.
        """
        folder = self.cfg.OUTPUT_DIR
        self._trainer.average.put(False)
        with Interrupt() as self._interrupt, writing(folder, folder):
            try:
                results = super().train()
            except KeyboardInterrupt:
                self._end_interrupted()
                raise
        self._trainer.average.put(True)
        if comm.is_main_process() and getattr(self.checkpointer, "description", None):
            with writing(os.path.join(folder, PACKED), folder):
                logger.info("to predict with: %s", pack(folder))
        log_results(self.cfg, getattr(self, "_last_eval_results", {}))
        return results

    def after_step(self) -> None:
        super().after_step()
        if self.iter + 1 < self.max_iter and self._is_interrupted():
            self._is_between_steps = True
            raise KeyboardInterrupt

    def _is_interrupted(self):
        """Whether to end after this step; the ranks agree on it when they write their losses."""
        if comm.get_world_size() == 1:
            return self._interrupt.is_asked
        return (self.iter + 1) % WRITE_PERIOD == 0 and any(
            comm.all_gather(self._interrupt.is_asked)
        )

    def _evaluate(self) -> dict[str, Any]:
        """The results; Ctrl-C ends a single process at once, for the step before is whole."""
        at_once = comm.get_world_size() == 1
        interrupted = self._interrupt.at_once() if at_once else contextlib.nullcontext()
        with self._trainer.average.in_model(), interrupted:
            self._is_between_steps = at_once
            self._last_eval_results = self.test(self.cfg, self.model)
        self._is_between_steps = False
        done = min(self.iter + 1, self.max_iter)  # at the end, `iter` has been counted up already
        write_results(self.cfg, self._last_eval_results, f"iteration {done:,}")
        return self._last_eval_results

    def _end_interrupted(self):
        if self._is_between_steps and self.iter < self.max_iter:
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
            comm.synchronize()  # the first rank to end ends the others
        logger.warning(
            "Interrupted in iteration %d; %s", self.iter, what_is_whole(self.cfg.OUTPUT_DIR)
        )

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on DATASETS.TEST, by the passes of TEST.SLIDING_WINDOW and TEST.AUG."""
        model = in_passes(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            cfg = changed(cfg, "INPUT.MIN_SIZE_TEST", 0)  # images come at their native size
        with writing(cfg.OUTPUT_DIR, cfg.OUTPUT_DIR):
            return super().test(cfg, model, evaluators)


def _length(loader: Iterable) -> int | None:
    return len(loader.dataset) if isinstance(loader, ResumableLoader) else None


def changed(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    """A copy of the config with another value of one key."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([key, value])
    return cfg


def amp_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """The type of SOLVER.AMP, None if it is off; bf16 for fp16 where there is no CUDA GPU."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.SOLVER.AMP.DTYPE
    if name not in AMP_DTYPES:
        raise ValueError(
            f"SOLVER.AMP.DTYPE must be one of {', '.join(AMP_DTYPES)}, not {name!r}; "
            "SOLVER.AMP.ENABLED False turns mixed precision off"
        )
    if name == "fp16" and device.type != "cuda":
        logger.warning("SOLVER.AMP.DTYPE fp16 needs a CUDA GPU; on %s bf16 is taken", device.type)
        return torch.bfloat16
    return AMP_DTYPES[name]
