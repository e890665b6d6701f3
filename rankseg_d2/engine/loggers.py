"""Metrics to Weights & Biases and MLflow: LOGGERS. The packages are imported only when asked for.

Project, server and key come from the packages' own settings, such as WANDB_PROJECT,
WANDB_MODE=offline or MLFLOW_TRACKING_URI. A resumed run goes on in the same run of theirs, whose
id lies in OUTPUT_DIR.
"""

import importlib
import importlib.util
import logging
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from .._yaml import settable_keys
from ..files import write_bytes

logger = logging.getLogger(__name__)

PROJECT = "rankseg_d2"  # unless an environment variable names one


def check_loggers(cfg: CfgNode) -> None:
    """ModuleNotFoundError where LOGGERS names a package that is not installed."""
    for name in cfg.LOGGERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # wandb leaves folders of its name, which are none
            raise ModuleNotFoundError(
                f"LOGGERS names {name}, but the package {name} is not installed: pip install "
                f"{name}, or take it out of LOGGERS"
            )


def build_loggers(cfg: CfgNode) -> list[EventWriter]:
    """The writers of LOGGERS; each starts a run, or goes on in that of OUTPUT_DIR."""
    check_loggers(cfg)
    return [_WRITERS[name](cfg) for name in dict.fromkeys(cfg.LOGGERS)]


class _Logger(EventWriter):
    """A writer that sees each scalar once, in the order of the iterations.

    Where one of the package's calls fails, such as without a network, one warning says so, and
    the training goes on without it.
    """

    package: str

    def __init__(self, cfg: CfgNode, window_size: int = 20) -> None:
        self._window_size = window_size
        self._last = -1  # iteration
        self._works = True
        self._api: Any = importlib.import_module(self.package)
        id_file = Path(cfg.OUTPUT_DIR, f"{self.package}_run_id")
        known = id_file.read_text().strip() if id_file.is_file() else None
        run_id = self.start(cfg, known or None)
        if run_id != known:
            write_bytes(id_file, run_id.encode())

    def start(self, cfg: CfgNode, run_id: str | None) -> str:
        """Start a run, or go on in the one with this id; its id."""
        raise NotImplementedError

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def write(self) -> None:
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        by_iteration: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in latest.items():
            if iteration > self._last:
                by_iteration[iteration][name] = value
        for iteration, metrics in sorted(by_iteration.items()):
            self._last = iteration
            self._try(self.log, metrics, iteration)

    def close(self) -> None:
        self._try(self.end)

    def _try(self, call, *args) -> None:
        if not self._works:
            return
        try:
            call(*args)
        except Exception as error:  # of any kind: it must not end a training
            self._works = False
            logger.warning("%s: %s; nothing more is logged there", self.package, error)


class WandbWriter(_Logger):
    package = "wandb"

    def start(self, cfg: CfgNode, run_id: str | None) -> str:
        self._run = self._api.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_run_name(cfg),
            dir=cfg.OUTPUT_DIR,
            id=run_id,
            resume="allow",
            config=_plain(cfg),
        )
        return self._run.id

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        self._run.log(metrics, step=iteration)

    def end(self) -> None:
        self._run.finish()


class MlflowWriter(_Logger):
    package = "mlflow"

    def start(self, cfg: CfgNode, run_id: str | None) -> str:
        if run_id is None and not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            self._api.set_experiment(PROJECT)
        run = self._api.start_run(run_id=run_id, run_name=None if run_id else _run_name(cfg))
        self._api.log_dict(_plain(cfg), "config.json")
        return run.info.run_id

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        # MLflow refuses other characters, which names of classes may have.
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in metrics.items()}
        self._api.log_metrics(named, step=iteration)

    def end(self) -> None:
        self._api.end_run()


_WRITERS = {"wandb": WandbWriter, "mlflow": MlflowWriter}


def _run_name(cfg: CfgNode) -> str:
    return os.path.basename(os.path.abspath(cfg.OUTPUT_DIR))


def _plain(cfg: CfgNode) -> dict[str, Any]:
    """Every key with its value, {"SOLVER.BASE_LR": 0.1, ...}."""
    return {name: key.section[key.name] for name, key in settable_keys(cfg).items()}
