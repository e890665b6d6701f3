"""What a run measures: `EventStorage` collects it, the writers put it where people look."""

import datetime
import json
import logging
import os
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile

import torch
from fvcore.common.history_buffer import HistoryBuffer

from .file_io import PathManager

__all__ = ["get_event_storage", "has_event_storage", "EventStorage", "EventWriter"]
__all__ += ["JSONWriter", "TensorboardXWriter", "CommonMetricPrinter"]

_active_storages = []


def has_event_storage() -> bool:
    return bool(_active_storages)


def get_event_storage():
    """The storage of the innermost `with EventStorage(...)` block that runs."""
    if not has_event_storage():
        raise RuntimeError("there is no event storage here: run this inside `with EventStorage():`")
    return _active_storages[-1]


class EventStorage:
    """Scalars with their histories, and images, each under its iteration."""

    def __init__(self, start_iter=0):
        self.iter = start_iter
        self._histories = defaultdict(HistoryBuffer)
        self._smooth = {}  # name -> whether to show the median of its last values
        self._latest = {}  # name -> (value, iteration)
        self._vis_data = []  # (name, image, iteration)
        self._prefix = ""

    @property
    def iteration(self):
        return self.iter

    def step(self):
        """Go on to the next iteration; to be called after everything of this one is put."""
        self.iter += 1

    def put_scalar(self, name, value, smoothing_hint=True, cur_iter=None):
        """Record a number; `smoothing_hint` says that it is noisy and best shown as a median."""
        name = self._prefix + name
        value = float(value)
        if self._smooth.setdefault(name, smoothing_hint) != smoothing_hint:
            raise ValueError(
                f"scalar {name!r} came with smoothing_hint={smoothing_hint}, and earlier with "
                f"{not smoothing_hint}; give it the same one each time"
            )
        iteration = self.iter if cur_iter is None else cur_iter
        self._histories[name].update(value, iteration)
        self._latest[name] = (value, iteration)

    def put_scalars(self, *, smoothing_hint=True, cur_iter=None, **kwargs):
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name, img_tensor):
        """Record an RGB image (3, H, W), uint8 or floats in [0, 1]."""
        self._vis_data.append((img_name, img_tensor, self.iter))

    def clear_images(self):
        self._vis_data.clear()

    def history(self, name):
        """The HistoryBuffer of a scalar."""
        if name not in self._histories:
            raise KeyError(f"no scalar {name!r} was put; there are: {', '.join(self._histories)}")
        return self._histories[name]

    def histories(self):
        return self._histories

    def smoothing_hints(self):
        return self._smooth

    def latest(self):
        """{name: (last value, its iteration)}"""
        return self._latest

    def latest_with_smoothing_hint(self, window_size=20):
        """As `latest`, but noisy scalars as the median over the last `window_size` iterations."""
        return {
            name: (self.smoothed(name, window_size) if self._smooth[name] else value, iteration)
            for name, (value, iteration) in self._latest.items()
        }

    def smoothed(self, name, window_size=20) -> float:
        """The median of a scalar over the `window_size` iterations up to its last value."""
        return float(self.history(name).median(self.count_samples(name, window_size)))

    def count_samples(self, name, window_size=20) -> int:
        """How many values a scalar has in the `window_size` iterations up to its last value."""
        values = self.history(name).values()
        before = values[-1][1] - window_size
        return sum(1 for _ in takewhile(lambda entry: entry[1] > before, reversed(values)))

    @contextmanager
    def name_scope(self, name):
        """Scalars put in this block are called `name/...`."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def __enter__(self):
        _active_storages.append(self)
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        assert _active_storages[-1] is self, "event storages must close in reverse order"
        _active_storages.pop()


class EventWriter:
    """Takes what is new in the current event storage and puts it somewhere."""

    def write(self):
        raise NotImplementedError

    def close(self):
        pass


class _ScalarWriter(EventWriter):
    """A writer that sees each scalar's value once."""

    def __init__(self, window_size):
        self._window_size = window_size
        self._last_write = -1

    def _new_scalars(self, storage):
        """(name, value, iteration) of the scalars put since the last call."""
        latest = storage.latest_with_smoothing_hint(self._window_size)
        new = [(k, value, i) for k, (value, i) in latest.items() if i > self._last_write]
        self._last_write = max((i for _, _, i in new), default=self._last_write)
        return new


class JSONWriter(_ScalarWriter):
    """One line of JSON per iteration that has new scalars."""

    def __init__(self, json_file, window_size=20):
        super().__init__(window_size)
        self._file = PathManager.open(json_file, "a")

    def write(self):
        lines = defaultdict(dict)
        for name, value, iteration in self._new_scalars(get_event_storage()):
            lines[iteration][name] = value
        for iteration, scalars in lines.items():
            line = json.dumps(scalars | {"iteration": iteration}, sort_keys=True)
            self._file.write(line + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


class TensorboardXWriter(_ScalarWriter):
    """Scalars and images as a tensorboard event file in `log_dir`."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs):
        super().__init__(window_size)
        self._writer_args = {"log_dir": log_dir} | kwargs

    @cached_property
    def _writer(self):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self):
        storage = get_event_storage()
        for name, value, iteration in self._new_scalars(storage):
            self._writer.add_scalar(name, value, iteration)
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()

    def close(self):
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """One log line: time left, iteration, losses, seconds per iteration, learning rate, memory.

    A scalar counts as a loss if its name holds "loss", and is shown too if it holds "[metric]".
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write = None  # (iteration, time) of the last line

    def write(self):
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return  # training is over: only its last metrics are still being written
        names = storage.histories()
        shown = [name for name in names if "loss" in name]
        shown += [name for name in names if "[metric]" in name and "loss" not in name]
        parts = [f"iter: {storage.iter}"]
        parts += [f"{name}: {storage.smoothed(name, self._window_size):.4g}" for name in shown]
        if "time" in names:
            times = storage.history("time")
            parts += [f"time: {times.global_avg():.4f}", f"last_time: {times.latest():.4f}"]
        if "data_time" in names:
            times = storage.history("data_time")
            mean = times.avg(storage.count_samples("data_time", self._window_size))
            parts += [f"data_time: {mean:.4f}", f"last_data_time: {times.latest():.4f}"]
        lr = f"{storage.history('lr').latest():.5g}" if "lr" in names else "N/A"
        parts.append(f"lr: {lr}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        eta = self._eta(storage)
        self.logger.info("  ".join([f"eta: {eta}", *parts] if eta else parts))

    def _eta(self, storage):
        """The time left, "h:mm:ss", or None if it is not known."""
        if self._max_iter is None:
            return None
        last, now = self._last_write, (storage.iter, time.perf_counter())
        self._last_write = now
        iterations_left = self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * iterations_left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        elif last is not None and now[0] > last[0]:
            seconds = (now[1] - last[1]) / (now[0] - last[0]) * iterations_left
        else:
            return None
        return str(datetime.timedelta(seconds=int(seconds)))


def default_writers(output_dir: str, max_iter: int | None = None):
    """Writers to the console, to metrics.json and to TensorBoard files in `output_dir`."""
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
