"""Hooks that read an evaluation: the best checkpoint, and the guard of the multi-label head."""

import logging
import math
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm

from ..errors import nearest, unknown_name

logger = logging.getLogger(__name__)


def hooks_after_evaluation(cfg: CfgNode, checkpointer: Checkpointer) -> list[HookBase]:
    """The hooks that TEST.BEST and SOLVER.MLHEAD_GUARD ask for."""
    built, best, guard = [], cfg.TEST.BEST, cfg.SOLVER.MLHEAD_GUARD
    is_main = comm.is_main_process()
    if best.MODE not in ("max", "min"):
        raise unknown_name("TEST.BEST.MODE", best.MODE, ("max", "min"))
    if best.METRIC and is_main:
        period = cfg.TEST.EVAL_PERIOD
        built.append(BestCheckpointer(period, checkpointer, best.METRIC, best.MODE))
    if guard.ENABLED:
        _check_guard(cfg)
        built.append(HeadGuard(cfg.TEST.EVAL_PERIOD, guard.METRIC, guard.DROP, guard.FACTOR))
        if is_main:  # once more, so that a resumed run knows what the guard has just done
            period = cfg.SOLVER.CHECKPOINT_PERIOD
            built.append(hooks.PeriodicCheckpointer(checkpointer, period))
    return built


class BestCheckpointer(hooks.BestCheckpointer):
    """detectron2's, but a resumed run remembers what the best was."""

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_metric = state_dict["best_metric"]
        self.best_iter = state_dict["best_iter"]


class HeadGuard(HookBase):
    """Multiplies the multi-label head's rate by `factor` where `metric` has fallen.

    That is where an evaluation gives more than `drop` less than the best one since the last time.
    The schedule keeps the rate and saves it; the hook only remembers the best.
    """

    def __init__(self, period: int, metric: str, drop: float, factor: float) -> None:
        self._period = period
        self._metric = metric
        self._drop = drop
        self._factor = factor
        self.best = None

    def before_train(self) -> None:
        if not any(group.get("name") == "ml_head" for group in self.trainer.optimizer.param_groups):
            raise ValueError(
                "SOLVER.MLHEAD_GUARD.ENABLED needs parameter groups whose `name` is ml_head; build "
                "the optimizer with rankseg_d2.engine.build_optimizer, or set the key False"
            )

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done < self.trainer.max_iter:
            latest = self.trainer.storage.latest()
            # Only the main process has results; all must do the same.
            value, known = comm.all_gather((latest.get(self._metric), sorted(latest)))[0]
            if value is None:
                near = ", ".join(nearest(self._metric, known))
                logger.warning(
                    "SOLVER.MLHEAD_GUARD.METRIC: no evaluation gives %r, so that nothing is "
                    "guarded; the nearest names are %s", self._metric, near
                )  # fmt: skip
            elif math.isfinite(value[0]):  # NaN is above and below nothing
                self._compare(value[0])

    def _compare(self, value: float) -> None:
        if self.best is not None and value < self.best - self._drop:
            rate = _lower_rate(self.trainer, "ml_head", self._factor)
            logger.info(
                "%s fell from %.3f to %.3f: the multi-label head's rate is now %.3g",
                self._metric, self.best, value, rate
            )  # fmt: skip
            self.best = value
        self.best = value if self.best is None else max(self.best, value)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


def _lower_rate(trainer: TrainerBase, part: str, factor: float) -> float:
    """Multiply the rates of a part of the model, from the next step on; the lowest of them then."""
    rates = []
    for i, group in enumerate(trainer.optimizer.param_groups):
        if group.get("name") == part:
            trainer.scheduler.base_lrs[i] *= factor
            group["lr"] *= factor
            rates.append(group["lr"])
    return min(rates)


def _check_guard(cfg: CfgNode) -> None:
    """Raise ValueError where the guard of the multi-label head could do nothing."""
    guard, rankseg = cfg.SOLVER.MLHEAD_GUARD, cfg.MODEL.RANKSEG
    if not rankseg.FLAG or rankseg.USE_GT:
        raise ValueError(
            "SOLVER.MLHEAD_GUARD.ENABLED needs a multi-label head, which a model has with "
            "MODEL.RANKSEG.FLAG True and USE_GT False; set the key False"
        )
    if cfg.TEST.EVAL_PERIOD <= 0:
        raise ValueError(
            "SOLVER.MLHEAD_GUARD.ENABLED needs evaluations during the training; set "
            "TEST.EVAL_PERIOD to a number of iterations"
        )
    if guard.DROP < 0 or not 0 < guard.FACTOR < 1:
        raise ValueError(
            "SOLVER.MLHEAD_GUARD.DROP must be 0 or more and FACTOR between 0 and 1, but they are "
            f"{guard.DROP} and {guard.FACTOR}"
        )
