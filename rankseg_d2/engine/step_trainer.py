"""One training step, with AMP types, gradient accumulation and the random choices of a resume."""

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..data.loading.loader import ResumableLoader, seed_step

logger = logging.getLogger(__name__)


class StepTrainer(SimpleTrainer):
    """One step: forward and backward over `accumulation_steps` equal parts, then the optimizer.

    The losses are averaged over the parts, so that the gradient is that of the whole batch (where
    the model's losses are means over the images).
    """

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
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.device = device
        self.seed = seed
        self.amp_dtype = amp_dtype
        self.accumulation_steps = accumulation_steps
        self.grad_scaler = torch.amp.GradScaler(
            device.type, enabled=amp_dtype is torch.float16 and device.type == "cuda"
        )
        self._batches = None

    def run_step(self) -> None:
        assert self.model.training, "the model is in eval mode"
        start = time.perf_counter()
        if self._batches is None:  # only now are seed and iteration known, and workers needed
            self._batches = self._batches_from(self.iter)
        batch = next(self._batches)
        data_time = time.perf_counter() - start

        seed_step(self.seed, self.iter)
        self.optimizer.zero_grad()
        means = defaultdict(float)
        parts = self._split(batch)
        for part in parts:
            with contextlib.nullcontext() if part is parts[-1] else self._no_sync():
                with self._autocast():
                    losses = self.model(part)
                if isinstance(losses, torch.Tensor):
                    losses = {"total_loss": losses}
                self.grad_scaler.scale(sum(losses.values()) / len(parts)).backward()
            for name, loss in losses.items():
                means[name] += loss.detach() / len(parts)
        self.after_backward()
        self.write_metrics(means, data_time, self.iter)  # raises where a loss is not finite
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

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
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.seed = state_dict.get("seed", self.seed)
        logger.info("Resuming with the seed of the checkpoint, %d", self.seed)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
