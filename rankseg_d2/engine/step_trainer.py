"""One training step, with AMP types, gradient accumulation and the random choices of a resume."""

import contextlib
import functools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..data.loading.loader import ResumableLoader, seed_step
from .fitting import parts_that_fit
from .weight_average import WeightAverage

logger = logging.getLogger(__name__)

WRITE_PERIOD = 20  # of detectron2's PeriodicWriter, in iterations


class StepTrainer(SimpleTrainer):
    """One step: forward and backward over `accumulation_steps` equal parts, then the optimizer.

    The losses are averaged over the parts, so that the gradient is that of the whole batch (where
    the model's losses are means over the images). With `fit_memory`, the first step finds how few
    parts fit into memory, and these are taken.

    All losses of a step leave the device in one copy. The ranks put theirs together when they are
    written: every `WRITE_PERIOD` iterations and after the last one, `max_iter`.

    `average` is that of the weights, updated after each step; without `average_decay` it is none.

    `watch`, if it is set, is called with each batch before its step.
    """

    watch: Callable[[list[dict]], None] | None = None

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: Optimizer,
        *,
        device: torch.device,
        seed: int,
        amp_dtype: torch.dtype | None = None,
        accumulation_steps: int = 1,
        fit_memory: bool = False,
        max_iter: int | None = None,
        average_decay: float = 0.0,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.device = device
        self.seed = seed
        self.amp_dtype = amp_dtype
        self.accumulation_steps = accumulation_steps
        self._is_to_fit = fit_memory
        self.last_iter = None if max_iter is None else max_iter - 1
        self.grad_scaler = torch.amp.GradScaler(
            device.type, enabled=amp_dtype is torch.float16 and device.type == "cuda"
        )
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        self.average = WeightAverage(bare, average_decay)
        self._batches = None
        self._unwritten = []  # (iteration, data_time, losses by name) of each step

    def run_step(self) -> None:
        assert self.model.training, "the model is in eval mode"
        start = time.perf_counter()
        if self._batches is None:  # only now are seed and iteration known, and workers needed
            self._batches = self._batches_from(self.iter)
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        if self.watch is not None:
            self.watch(batch)
        if self._is_to_fit:
            self.accumulation_steps, self._is_to_fit = self._parts_that_fit(batch), False

        seed_step(self.seed, self.iter)
        self.optimizer.zero_grad()
        means = defaultdict(float)
        parts = self._split(batch)
        for part in parts:
            with contextlib.nullcontext() if part is parts[-1] else self._no_sync():
                losses = self._run_part(part, 1 / len(parts))
            for name, loss in losses.items():
                means[name] += loss.detach() / len(parts)
        self.after_backward()
        self.note_losses(means, data_time)  # raises where a loss is not finite
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.average.update(self.iter)
        is_due = (self.iter + 1) % WRITE_PERIOD == 0 or self.iter == self.last_iter
        if is_due or comm.get_world_size() == 1:
            self.write_losses()

    def _run_part(self, part: list[dict], share: float) -> dict[str, Tensor]:
        """Forward, and backward of this share of the losses."""
        with self._autocast():
            losses = self.model(part)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        self.grad_scaler.scale(sum(losses.values()) * share).backward()
        return losses

    def _parts_that_fit(self, batch: list[dict]) -> int:
        def step(part):
            self._run_part(part, 1.0)

        with self._no_sync():
            return parts_that_fit(step, batch, self.model, self.optimizer, self.device)

    def note_losses(self, losses: dict[str, Tensor], data_time: float) -> None:
        """Keep the losses of this step and rank; FloatingPointError where one is not finite."""
        numbers = torch.cat([loss.float().reshape(1) for loss in losses.values()]).cpu().numpy()
        by_name = dict(zip(losses, numbers.tolist(), strict=True))
        if not all(map(math.isfinite, by_name.values())):
            raise FloatingPointError(
                f"a loss is not finite at iteration {self.iter}: {by_name}; the model has diverged "
                "or overflowed: lower SOLVER.BASE_LR, clip gradients, or train with bfloat16 or "
                "without AMP"
            )
        self._unwritten.append((self.iter, data_time, by_name))

    def write_losses(self) -> None:
        """Put what is noted, as means over all ranks, into the event storage of the main process.

        All ranks must call it.
        """
        of_ranks = comm.gather(self._unwritten)
        self._unwritten = []
        for rows in zip(*of_ranks, strict=True):  # those of one iteration
            iterations, data_times, losses = zip(*rows, strict=True)
            means = {name: sum(one[name] for one in losses) / len(losses) for name in losses[0]}
            put = functools.partial(get_event_storage().put_scalars, cur_iter=iterations[0])
            # The slowest loader is what the others wait for.
            put(data_time=max(data_times), total_loss=sum(means.values()))
            if len(means) > 1:
                put(**means)

    def _batches_from(self, iteration: int) -> Iterator[list[dict]]:
        if isinstance(self.data_loader, ResumableLoader):
            return self.data_loader.batches(self.seed, iteration)
        if iteration > 0:
            logger.warning(
                "The training loader is not from rankseg_d2.engine.build_train_loader: it starts "
                "anew, so that the samples differ from those of an uninterrupted run"
            )
        return iter(self.data_loader)

    def _split(self, batch: list[dict]) -> list[list[dict]]:
        size, rest = divmod(len(batch), self.accumulation_steps)
        if rest or not size:
            raise ValueError(
                f"a batch of {len(batch)} does not split into SOLVER.ACCUMULATION_STEPS "
                f"({self.accumulation_steps}) equal parts; change SOLVER.IMS_PER_BATCH or that key"
            )
        return [batch[i : i + size] for i in range(0, len(batch), size)]

    def _no_sync(self) -> contextlib.AbstractContextManager:
        """The gradients of all ranks are averaged once, with the last part."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"seed": self.seed}
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        trained = self.average.trained()
        return state | ({"trained_weights": trained} if trained else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                is_tensor = isinstance(value, Tensor) and value.shape in ((), parameter.shape)
                if not is_tensor and not isinstance(value, int | float | None):
                    raise ValueError(f"{name} of the optimizer is not of its parameter's shape")
        self.average.restore(state_dict.get("trained_weights", {}))
        self.seed = state_dict.get("seed", self.seed)
        logger.info("Resuming with the seed of the checkpoint, %d", self.seed)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
