"""The hooks of the default trainer: timing, learning rate, checkpoints, evaluation, writers."""

import datetime
import logging
import math
import operator
import time
from collections import Counter

import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler

from ..evaluation.testing import flatten_results_dict
from ..solver import LRMultiplier
from ..utils import comm
from ..utils.events import EventStorage
from .train_loop import HookBase

__all__ = [
    "CallbackHook", "IterationTimer", "PeriodicWriter", "PeriodicCheckpointer",
    "BestCheckpointer", "LRScheduler", "EvalHook", "PreciseBN",
]  # fmt: skip

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """A hook out of functions; each gets the trainer."""

    def __init__(self, *, before_train=None, after_train=None, before_step=None, after_step=None):
        self._functions = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def before_train(self):
        self._call("before_train")

    def after_train(self):
        self._call("after_train")
        self._functions = {}  # they may hold the trainer, which is to be freed

    def before_step(self):
        self._call("before_step")

    def after_step(self):
        self._call("after_step")

    def _call(self, moment):
        if function := self._functions.get(moment):
            function(self.trainer)


class IterationTimer(HookBase):
    """The scalar "time", seconds per step without the hooks; at last a summary in the log.

    Keep it the first hook. The first `warmup_iter` iterations are not counted.
    """

    def __init__(self, warmup_iter=3):
        self._warmup_iter = warmup_iter

    def before_train(self):
        self._start = time.perf_counter()
        self._in_steps, self._counted = 0.0, 0

    def before_step(self):
        self._step_start = time.perf_counter()

    def after_step(self):
        seconds = time.perf_counter() - self._step_start
        done = self.trainer.storage.iter - self.trainer.start_iter + 1
        if done >= self._warmup_iter:
            self.trainer.storage.put_scalars(time=seconds)
            self._in_steps += seconds
            self._counted += 1
        else:
            self._start = time.perf_counter()

    def after_train(self):
        total = time.perf_counter() - self._start
        if self._counted:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                self._counted, _hours(self._in_steps), self._in_steps / self._counted,
            )  # fmt: skip
        on_hooks = _hours(total - self._in_steps)
        logger.info("Total training time: %s (%s on hooks)", _hours(total), on_hooks)


class PeriodicWriter(HookBase):
    """Let the EventWriters write every `period` iterations and at the end."""

    def __init__(self, writers, period=20):
        self._writers = writers
        self._period = period

    def after_step(self):
        if _is_due(self.trainer, self._period) or _is_last(self.trainer):
            for writer in self._writers:
                writer.write()

    def after_train(self):
        for writer in self._writers:
            writer.write()  # what hooks have put since the last step, such as the evaluation
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's PeriodicCheckpointer as a hook; the last iteration is saved in any case."""

    def before_train(self):
        self.max_iter = self.trainer.max_iter

    def after_step(self):
        self.step(self.trainer.iter)


class _Periodic(HookBase):
    """`_run` every `_period` iterations, and after the training if that has come to its end."""

    def after_step(self):
        if _is_due(self.trainer, self._period) and not _is_last(self.trainer):
            self._run()

    def after_train(self):
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._run()


class BestCheckpointer(_Periodic):
    """Save `file_prefix`.pth whenever the scalar `val_metric` is the best so far.

    Register it after the EvalHook that makes the metric, with the same period.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode of BestCheckpointer must be 'max' or 'min', not {mode!r}")
        self._period = eval_period
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._checkpointer = checkpointer
        self._file_prefix = file_prefix
        self.best_metric = None
        self.best_iter = None

    def _run(self):
        name = self._val_metric
        value, iteration = self.trainer.storage.latest().get(name, (math.nan, None))
        if iteration is None:
            logger.warning("There is no metric %r to choose the best checkpoint by", name)
        elif math.isfinite(value) and (
            self.best_metric is None or self._is_better(value, self.best_metric)
        ):
            self.best_metric, self.best_iter = value, iteration
            self._checkpointer.save(self._file_prefix, iteration=iteration)
            logger.info("Saved the best model: %s is %.5f @ %d steps", name, value, iteration)
        else:
            best = (self.best_metric, self.best_iter)
            logger.info("%s is %.5f, not better than %s @ %s steps", name, value, *best)


class LRScheduler(HookBase):
    """Step the scheduler after each iteration; the scalar "lr".

    Optimizer and scheduler are the trainer's unless given; a fvcore ParamScheduler multiplies
    the optimizer's initial learning rates.
    """

    def __init__(self, optimizer=None, scheduler=None):
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self):
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self.scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer):
        """The group whose rate is shown: the largest, or one of the commonest rate."""
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self):
        lr = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self):
        return self._scheduler or self.trainer.scheduler

    def state_dict(self):
        is_torchs = isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler)
        return self.scheduler.state_dict() if is_torchs else {}

    def load_state_dict(self, state_dict):
        if isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler):
            self.scheduler.load_state_dict(state_dict)


class EvalHook(_Periodic):
    """Evaluate every `eval_period` iterations and after the last one.

    `eval_function` takes nothing and returns a (nested) dict of numbers; all ranks call it.
    """

    def __init__(self, eval_period, eval_function, eval_after_train=True):
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def after_train(self):
        if self._eval_after_train:
            super().after_train()
        self._func = None  # it is likely to hold the trainer, which is to be freed

    def _run(self):
        results = flatten_results_dict(self._func() or {})
        for name, value in results.items():
            try:
                results[name] = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    "the evaluation must return a (nested) dict of numbers, "
                    f"but {name} is {value!r}"
                ) from error
        self.trainer.storage.put_scalars(**results, smoothing_hint=False)
        # Evaluators may take unlike times: nobody starts the next step before all are done.
        comm.synchronize()


class PreciseBN(HookBase):
    """Set the BatchNorm statistics from `num_iter` batches, every `period` iterations.

    Register it before the EvalHook. The last iteration counts too.
    """

    def __init__(self, period, model, data_loader, num_iter):
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._batches = None

    def after_step(self):
        if _is_due(self.trainer, self._period) or _is_last(self.trainer):
            self.update_stats()

    def update_stats(self):
        """Run the batches through the model and set its BatchNorm statistics."""
        from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

        if not get_bn_modules(self._model):
            return
        self._batches = self._batches or iter(self._data_loader)
        logger.info("Running precise-BN for %d iterations", self._num_iter)
        with EventStorage():  # what these forward passes put belongs to no iteration
            update_bn_stats(self._model, self._batches, self._num_iter)


def _is_due(trainer, period):
    return period > 0 and (trainer.iter + 1) % period == 0


def _is_last(trainer):
    return trainer.iter + 1 == trainer.max_iter


def _hours(seconds):
    return str(datetime.timedelta(seconds=int(seconds)))
