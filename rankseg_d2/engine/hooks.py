"""Hooks that read an evaluation or write into the run folder.

The best checkpoint, the guard of the multi-label head; the first batches, the table and curves of
what is measured.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.checkpoint import Checkpointer
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm

from ..drawing import class_colors
from ..errors import nearest, unknown_name
from ..files import write_image, write_json
from ..tasks import class_list
from .batch_pictures import ClassTable, draw_batch
from .metrics_table import MetricsTable, draw_curves, is_result
from .run_folder import warning_of
from .step_trainer import WRITE_PERIOD, StepTrainer

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


def hooks_of_run_folder(cfg: CfgNode, description: dict[str, Any] | None) -> list[HookBase]:
    """The hooks that show a training in OUTPUT_DIR; only of the main process.

    `description` is that of `packing.describe`; None where the classes have no names.
    """
    if not comm.is_main_process():
        return []
    listed = description["classes"] if description else []
    folder = Path(cfg.OUTPUT_DIR)
    classes = _class_table(listed, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)

    def draw(batch: list[dict]) -> np.ndarray:
        has_all = class_list(cfg) == "stuff_classes"  # then pixels without a label are ignored
        is_bgr = cfg.INPUT.FORMAT == "BGR"
        return draw_batch(batch, classes, is_bgr=is_bgr, marks_unlabelled=has_all)

    return [ClassFile(folder, listed), BatchPictures(folder, draw), MetricsFiles(folder)]


def _class_table(listed: list[dict], count: int) -> ClassTable:
    if not listed:
        listed = [{"name": f"class {i}", "isthing": False} for i in range(count)]
    names = [entry["name"] for entry in listed]
    colors = [entry["color"] for entry in listed if "color" in entry]
    colors = class_colors(names, colors if len(colors) == len(names) else None)
    return ClassTable(names, colors, [entry["isthing"] for entry in listed])


class ClassFile(HookBase):
    """classes.json: number, name, colour, whether it is a thing, and the data set's id."""

    def __init__(self, folder: Path, listed: list[dict]) -> None:
        self._folder = folder
        self._listed = listed

    def before_train(self) -> None:
        if self._listed:
            colors = _class_table(self._listed, 0).colors.tolist()
            content = [
                {"number": i, "name": entry["name"], "color": color, "isthing": entry["isthing"],
                 "id": entry["id"]}
                for i, (entry, color) in enumerate(zip(self._listed, colors, strict=True))
            ]  # fmt: skip
            with warning_of(self._folder / "classes.json"):
                write_json(self._folder / "classes.json", content, indent=1)


class BatchPictures(HookBase):
    """train_batch_0.jpg to train_batch_2.jpg, each just before the model gets the batch.

    `draw` makes a picture of a batch. It draws no random number, and takes nothing of the loader.
    """

    COUNT = 3

    def __init__(self, folder: Path, draw: Callable[[list[dict]], np.ndarray]) -> None:
        self._folder = folder
        self._draw = draw

    def before_train(self) -> None:
        self._step_trainer = getattr(self.trainer, "_trainer", None)
        if self.trainer.iter < self.COUNT and isinstance(self._step_trainer, StepTrainer):
            self._step_trainer.watch = self._show

    def _show(self, batch: list[dict]) -> None:
        number = self.trainer.iter
        path = self._folder / f"train_batch_{number}.jpg"
        with warning_of(path):
            write_image(path, self._draw(batch), quality=92)
        if number + 1 >= self.COUNT:
            self._step_trainer.watch = None
            logger.info("the first batches, as the model sees them: %s", path)

    def after_train(self) -> None:
        self._step_trainer = None


class MetricsFiles(HookBase):
    """metrics.csv, each time that metrics.json has new lines, and now and then curves.png.

    The curves are drawn after evaluations, at the end, and whenever a tenth more is there to draw.
    Register it after the PeriodicWriter, which writes metrics.json.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table: MetricsTable | None = None
        self._drawn = 0  # rows

    def before_train(self) -> None:
        with warning_of(self._folder / "metrics.csv"):
            self._table = MetricsTable(self._folder, self.trainer.iter)

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % WRITE_PERIOD == 0:
            self._update(is_last=False)

    def after_train(self) -> None:
        self._update(is_last=True)

    def _update(self, is_last: bool) -> None:
        if self._table is None:
            return
        with warning_of(self._folder / "metrics.csv"):
            names = self._table.update()
            count = len(self._table.rows)
            is_due = any(map(is_result, names)) or count >= 1.1 * self._drawn
            if count and (is_last or is_due):
                self._drawn = count
                self._draw_curves()

    def _draw_curves(self) -> None:
        with warning_of(self._folder / "curves.png"):
            picture = draw_curves(self._table.rows, self._folder.absolute().name)
            write_image(self._folder / "curves.png", picture)


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
    if not rankseg.FLAG or rankseg.USE_GT or rankseg.SCORES == "masks":
        raise ValueError(
            "SOLVER.MLHEAD_GUARD.ENABLED needs a multi-label head, which a model has with "
            "MODEL.RANKSEG.FLAG True, USE_GT False and SCORES head or both; set the key False"
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
