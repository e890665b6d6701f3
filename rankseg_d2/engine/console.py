"""What a run shows on the console: a page before the first iteration, then a line now and then.

OUTPUT_DIR/log.txt has the same and all the rest: environment, whole config, modules of the model.
"""

import datetime
import itertools
import logging
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from detectron2.utils.logger import setup_logger
from torch import nn

from .._yaml import set_keys, settable_keys
from ..config import add_rankseg_config
from ..config_files import read_sources, shipped_configs_dir
from ..files import read_json
from ..memory import highest_memory
from ..tables import text_table

logger = logging.getLogger(__name__)

WIDTH = 120  # of a line
_NOISE = "Rank of current|Command line arg|Full config saved|Set fp32|Evaluation results for"
_MOST_KEYS = 12  # of the config, on the console
_MOST_CLASSES = 30
# Table of an evaluator -> its metric, and the heading of that in the table of all classes.
_CLASS_METRICS = {
    "sem_seg": ("IoU", "IoU"),
    "panoptic_seg": ("PQ", "PQ"),
    "segm": ("AP", "AP"),
    "parsing": ("APr", "region AP"),
    "multilabel": ("AP", "ranking AP"),
}
_PARTS = "backbone", "sem_seg_head.pixel_decoder", "sem_seg_head.predictor", "ml_head"
# The losses of all layers add up under these names, in this order; others keep their own.
_LOSSES = {"ce": "class", "mask": "mask", "dice": "mask", "sem_seg": "pixels", "ml": "ranking"}


def set_up_console(output_dir: str) -> None:
    """Log to the console and to OUTPUT_DIR/log.txt, the console without what fills pages."""
    for name in ("detectron2", "fvcore", "rankseg_d2"):
        # By the very calls of detectron2's default_setup, whose own then change nothing.
        named = {} if name == "detectron2" else {"name": name}
        for handler in setup_logger(output_dir, distributed_rank=comm.get_rank(), **named).handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.setFormatter(_Lines("%(asctime)s %(message)s", "%H:%M:%S"))
                handler.addFilter(_is_for_console)


def _is_for_console(record: logging.LogRecord) -> bool:
    """Whether it is a warning, of this package, or one line of detectron2 that says something new.

    Environment, config and model take hundreds of lines; results in csv repeat the tables.
    """
    is_ours = record.name.startswith("rankseg_d2.") and "_detectron2." not in record.name
    if is_ours or record.levelno >= logging.WARNING:
        return True
    message = record.getMessage()
    is_noise = re.match(_NOISE, message) or record.name.endswith("evaluation.testing")
    return "\n" not in message and not is_noise


class _Lines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if record.levelno < logging.WARNING else f"{record.levelname} {line}"


def log_config(cfg: CfgNode, config_file: str, opts: Sequence) -> None:
    """Log what differs from the base of a config file, or from a shipped config."""
    sources = list(read_sources(config_file, opts))
    last = sources[-2][0]
    is_shipped = last.startswith(str(shipped_configs_dir()))
    base = get_cfg()
    add_rankseg_config(base)
    for source, values in sources[: -1 if is_shipped else -2]:
        set_keys(settable_keys(base), values, source)
    before, after = _leaves(base), _leaves(cfg)
    lines = [f"  {key}: {before[key]!r} -> {after[key]!r}" for key in after
             if after[key] != before[key]]  # fmt: skip
    more = len(lines) - _MOST_KEYS
    if more > 0:
        lines[_MOST_KEYS:] = [f"  and {more} more keys (log.txt has the whole config)"]
    what = "" if is_shipped else ", which changes of its base" if len(sources) > 2 else ""
    head = f"config {config_file}{what}{':' if lines else ''}"
    logger.info("%s", "\n".join([head, *map(_cut, lines)]))


def _leaves(cfg: CfgNode) -> dict[str, Any]:
    keys = settable_keys(cfg).items()
    values = {name: key.section[key.name] for name, key in keys}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if not isinstance(value, dict)
    }


def log_model(model: nn.Module) -> None:
    """Log the number of parameters, and the part of the backbone, the decoders and the head."""
    frozen = _count(parameter for parameter in model.parameters() if not parameter.requires_grad)
    lines = [f"model {type(model).__name__}: {_count(model.parameters())} parameters"]
    if frozen != _count([]):
        lines[0] += f", {frozen} of them frozen"
    modules = dict(model.named_modules())
    for name in _PARTS:
        if name in modules:
            kind, count = type(modules[name]).__name__, _count(modules[name].parameters())
            lines.append(f"  {name.rpartition('.')[2]}: {kind}, {count}")
    logger.info("%s", "\n".join(lines))


def _count(parameters) -> str:
    number = sum(parameter.numel() for parameter in parameters)
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def log_data(cfg: CfgNode, num_records: int | None) -> None:
    """Log the data of training and of evaluations."""
    train, test = (", ".join(cfg.DATASETS[key]) or "nothing" for key in ("TRAIN", "TEST"))
    count = "" if num_records is None else f", {num_records:,} images or videos"
    auto = ", in as few parts as fit into memory" if cfg.SOLVER.FIT_MEMORY else ""
    period = cfg.TEST.EVAL_PERIOD
    when = f", every {period} iterations and" if period > 0 else ""
    lines = [
        f"training on {train}{count}, in batches of {cfg.SOLVER.IMS_PER_BATCH}{auto}",
        f"evaluation on {test}{when} at the end",
    ]
    logger.info("%s", "\n".join(map(_cut, lines)))


def _cut(line: str) -> str:
    line = " ".join(line.split("\n"))
    return line if len(line) < WIDTH - 9 else f"{line[: WIDTH - 12]}..."


def log_results(cfg: CfgNode, results: dict[str, Any]) -> None:
    """Log the classes of each data set, the worst first, and where the tables and pictures are.

    `results` are those of `Trainer.test`.
    """
    for name in cfg.DATASETS.TEST if comm.is_main_process() else ():
        folder = Path(cfg.OUTPUT_DIR, "inference", name)
        own = results.get(name, results)  # of several data sets, {name: results}
        columns = {head: _read_column(folder / f"{task}.json", metric)
                   for task, (metric, head) in _CLASS_METRICS.items() if task in own}  # fmt: skip
        if any(columns.values()):
            logger.info("%s, classes, the worst first\n%s", name, _class_table(columns))
            logger.info("all numbers: %s/*.json", folder)
        if (folder / "sheet.png").is_file():
            logger.info("pictures: %s", folder / "sheet.png")


def _read_column(path: Path, metric: str) -> dict[str, float]:
    """{class: value} of an evaluator's table, without the classes that do not occur."""
    rows = read_json(path)["rows"] if path.is_file() else []
    return {row["class"]: row[metric] for row in rows if row.get(metric) is not None}


def _class_table(columns: dict[str, dict[str, float]]) -> str:
    """The classes by their first column, ascending; at most _MOST_CLASSES of them."""
    columns = {head: values for head, values in columns.items() if values}
    order = next(iter(columns.values()))
    names = sorted(dict.fromkeys(itertools.chain(*columns.values())),
                   key=lambda name: order.get(name, math.inf))  # fmt: skip
    rows = [
        {"class": name} | {head: values.get(name, "-") for head, values in columns.items()}
        for name in names[:_MOST_CLASSES]
    ]
    more = len(names) - len(rows)
    return text_table(rows) + (f"\nand {more} better ones" if more > 0 else "")


class ProgressLine(EventWriter):
    """One line in WIDTH columns: iteration, losses, rate, seconds, time left, peak of memory."""

    def __init__(self, max_iter: int, device: torch.device, window_size: int = 20) -> None:
        self.max_iter = max_iter
        self.device = device  # whose memory it is
        self.window_size = window_size

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter < self.max_iter:  # after that, only the last evaluation is written
            logger.info("%s", "  ".join(self._parts(storage)))

    def _parts(self, storage: EventStorage) -> Iterator[str]:
        latest = storage.latest_with_smoothing_hint(self.window_size)
        values = {name: value for name, (value, _) in latest.items()}
        yield f"{storage.iter + 1}/{self.max_iter}"
        if "total_loss" in values:
            kinds = ", ".join(f"{kind} {loss:.3g}" for kind, loss in loss_kinds(values).items())
            # a single loss is logged as the total alone
            yield f"loss {values['total_loss']:.4g}" + (f" ({kinds})" if kinds else "")
        if "lr" in values:
            yield f"lr {values['lr']:.2g}"
        if "time" in values:
            seconds = storage.history("time").median(1000)
            left = seconds * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            yield f"{seconds:.3g} s/it"
            yield f"left {datetime.timedelta(seconds=int(left))}"
        if (peak := highest_memory(self.device)) is not None:
            yield f"{peak / 2**30:.1f} GiB"


def loss_kinds(values: dict[str, float]) -> dict[str, float]:
    """The losses of all layers together, by kind: loss_mask and loss_dice_3 are of kind mask."""
    sums = dict.fromkeys(_LOSSES.values(), 0.0)
    for name, value in values.items():
        if match := re.fullmatch(r"loss_(.+?)(_\d+)?", name):
            kind = _LOSSES.get(match[1], match[1])
            sums[kind] = sums.get(kind, 0.0) + value
    return {kind: value for kind, value in sums.items() if value}
