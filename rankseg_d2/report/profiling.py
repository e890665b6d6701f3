"""`rankseg-d2 profile`: where the time of a prediction or a training step goes, stage by stage."""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from ..config import get_config
from ..engine import Checkpointer, Trainer, check_datasets, class_names
from ..errors import cut
from ..tables import text_table

# Stage -> the calls that belong to it: a part of the model, and what of it is called. A call
# within another one counts for the inner one's stage alone.
STAGES = {
    "data": [],
    "preprocessing": [("", "preprocess"), ("", "prepare_targets")],
    "backbone": [("backbone", "forward")],
    "pixel decoder": [("sem_seg_head.pixel_decoder", "forward")],
    "transformer decoder": [("sem_seg_head.predictor", "forward")],
    "mask predictions": [("sem_seg_head.predictor", "predict_masks")],
    "head": [("sem_seg_head", "forward")],
    "ranking": [("", "scored")],
    "class logits": [("", "decide")],
    "losses": [("", "losses")],
    "matcher": [("criterion", "matcher")],
    "optimizer": [],
    "results": [("", "result")],
    "rest": [],
}
_ROUNDS_BEFORE = 2  # which warm up


class StageClock:
    """Seconds by stage, and by whether it was the backward pass: each moment counts once."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: Counter[tuple[str, bool]] = Counter()
        self._now = ("rest", False)
        self._since = time.perf_counter()
        self._seen: dict[int, Tensor] = {}  # of this round, kept so that no number comes twice

    def switch(self, stage: str, backward: bool = False) -> tuple[str, bool]:
        """From now on time counts for this stage; returns the one before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, before = time.perf_counter(), self._now
        self.seconds[before] += now - self._since
        self._now, self._since = (stage, backward), now
        return before

    @contextmanager
    def within(self, stage: str, backward: bool = False) -> Iterator[None]:
        before = self.switch(stage, backward)
        try:
            with record_function(f"{stage}, backward" if backward else stage):
                yield
        finally:
            self.switch(*before)

    def timed(self, function: Callable, stage: str) -> Callable:
        """The function; its time counts for the stage, and so does its backward pass."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.within(stage):
                found = function(*args, **kwargs)
                for tensor in tensors_of(found):
                    # The innermost stage that gives a tensor has computed it.
                    if tensor.requires_grad and id(tensor) not in self._seen:
                        self._seen[id(tensor)] = tensor
                        tensor.register_hook(lambda _: self.switch(stage, True) and None)
            return found

        return call

    def end_round(self) -> Counter[tuple[str, bool]]:
        """The seconds of the round that ends here."""
        self.switch("rest")
        found, self.seconds = self.seconds, Counter()
        self._seen.clear()
        return found


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in nested containers and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, dict):
        value = list(value.values())
    for one in value if isinstance(value, list | tuple) else ():
        yield from tensors_of(one)


@contextmanager
def timing(model: nn.Module) -> Iterator[StageClock]:
    """Time the stages of a model."""
    clock = StageClock(model.pixel_mean.device)
    with ExitStack() as stack:
        for stage, calls in STAGES.items():
            for part, name in calls:
                try:
                    owner = model.get_submodule(part)
                    function = getattr(owner, name)
                except AttributeError:
                    continue  # another kind of model
                stack.enter_context(patch.object(owner, name, clock.timed(function, stage)))
        yield clock


def run(args: argparse.Namespace) -> int:
    cfg = _config(args)
    model = Trainer.build_model(cfg)
    if args.weights:
        Checkpointer(model, class_names=class_names(cfg)).load(args.weights)
    with timing(model) as clock, EventStorage(0):
        rounds = (training if args.train else prediction)(cfg, model, clock)
        found = [next(rounds) for _ in range(_ROUNDS_BEFORE + args.repeats)][_ROUNDS_BEFORE:]
        if args.trace:
            _write_trace(args.trace, rounds, clock.device)
    rows = table(found)
    of = f"training steps of {cfg.SOLVER.IMS_PER_BATCH}" if args.train else "predictions of 1"
    device = (
        torch.cuda.get_device_name(clock.device)
        if clock.device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    if args.json:
        content = {"config": args.config, "of": of, "device": device, "stages": rows}
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        title = f"{args.config}: medians of {len(found)} {of}, {device}"
        sys.stdout.write(f"{title}\n\n{text_table(rows)}\n")
    return 0


def _config(args: argparse.Namespace) -> CfgNode:
    # Loading runs in this process, so that its time is seen.
    cfg = get_config(args.config, [*args.opts, "DATALOADER.NUM_WORKERS", 0])
    check_datasets(cfg)
    key = "TRAIN" if args.train else "TEST"
    if not cfg.DATASETS[key]:
        raise ValueError(f"DATASETS.{key} names no data set, whose images are needed")
    if args.trace and not Path(args.trace).absolute().parent.is_dir():
        raise ValueError(f"--trace {cut(args.trace)}: the folder does not exist")
    return cfg


def prediction(
    cfg: CfgNode, model: nn.Module, clock: StageClock
) -> Iterator[Counter[tuple[str, bool]]]:
    """Predict the first images of DATASETS.TEST, again and again."""
    model.eval()
    while True:
        loader = iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
        clock.end_round()
        while True:
            with clock.within("data"):
                batch = next(loader, None)
            if batch is None:
                break
            with torch.no_grad():
                model(batch)
            yield clock.end_round()


def training(
    cfg: CfgNode, model: nn.Module, clock: StageClock
) -> Iterator[Counter[tuple[str, bool]]]:
    """Train on DATASETS.TRAIN."""
    model.train()
    optimizer = Trainer.build_optimizer(cfg, model)
    loader = iter(Trainer.build_train_loader(cfg))
    clock.end_round()
    while True:
        with clock.within("data"):
            batch = next(loader)
        loss = sum(model(batch).values())
        with clock.within("losses", backward=True):
            loss.backward()
        with clock.within("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        yield clock.end_round()


def table(rounds: Sequence[Counter[tuple[str, bool]]]) -> list[dict[str, Any]]:
    """A row for each stage that takes time, and one for all: medians over the rounds."""
    has_backward = any(backward for seconds in rounds for _, backward in seconds)
    stages = [name for name in STAGES if any(seconds[name, False] for seconds in rounds)]
    return [_row(rounds, [stage], has_backward) for stage in stages] + [
        _row(rounds, stages, has_backward) | {"stage": "all"}
    ]


def _row(rounds: Sequence[Counter], stages: Sequence[str], has_backward: bool) -> dict[str, Any]:
    parts = [[sum(s[name, flag] for name in stages) for flag in (False, True)] for s in rounds]
    shares = [sum(own) / sum(s.values()) for own, s in zip(parts, rounds, strict=True)]
    forward, backward = (1000.0 * statistics.median(times) for times in zip(*parts, strict=True))
    row = {"stage": stages[0], "ms": forward}
    if has_backward:
        row["backward ms"] = backward
    return row | {"% of all": 100 * statistics.median(shares)}


def _write_trace(path: str, rounds: Iterator, device: torch.device) -> None:
    """One more round in the format of Chrome's and Perfetto's viewers."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        next(rounds)
    profiler.export_chrome_trace(path)
    sys.stderr.write(f"trace: {path}, for https://ui.perfetto.dev\n")
