"""The training loop, its hooks, and one optimisation step."""

import concurrent.futures
import contextlib
import logging
import time
import weakref
from collections.abc import Mapping

import numpy as np
import torch

from ..utils import comm
from ..utils.events import EventStorage, get_event_storage

__all__ = ["HookBase", "TrainerBase", "SimpleTrainer", "AMPTrainer"]

logger = logging.getLogger(__name__)


class HookBase:
    """Something to do at given moments of the loop; `self.trainer` is set on registration.

    before_train, then for each iteration before_step, (the step, with after_backward inside),
    after_step; at last after_train, which also runs when the training fails.
    """

    trainer: "TrainerBase" = None

    def before_train(self):
        pass

    def after_train(self):
        pass

    def before_step(self):
        pass

    def after_backward(self):
        pass

    def after_step(self):
        pass

    def state_dict(self):
        """What a checkpoint keeps of this hook; it then needs a load_state_dict too."""
        return {}


class TrainerBase:
    """A loop over `run_step` with hooks around it.

    `iter`, `start_iter`, `max_iter` and `storage` (the EventStorage) are set while it trains.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Append the hooks, in the order in which they will run; None is passed over."""
        for hook in filter(None, hooks):
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int):
        """Run the iterations start_iter, ..., max_iter - 1."""
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self):
        for hook in self._hooks:
            hook.before_train()

    def after_train(self):
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self):
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self):
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self):
        for hook in self._hooks:
            hook.after_step()

    def run_step(self):
        raise NotImplementedError

    def state_dict(self):
        hooks = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        hooks = {name: state for name, state in hooks.items() if state}
        return {"iteration": self.iter} | ({"hooks": hooks} if hooks else {})

    def load_state_dict(self, state_dict):
        self.iter = state_dict["iteration"]
        hooks = {type(hook).__qualname__: hook for hook in reversed(self._hooks)}
        for name, state in state_dict.get("hooks", {}).items():
            if name in hooks:
                hooks[name].load_state_dict(state)
            else:
                logger.warning("No hook %r is registered: its saved state is left out", name)


class SimpleTrainer(TrainerBase):
    """One model, one endless data loader, one optimizer; the model returns a dict of losses."""

    def __init__(
        self, model, data_loader, optimizer, gather_metric_period=1, zero_grad_before_forward=False,
        async_write_metrics=False,
    ):  # fmt: skip
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self.concurrent_executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._batches = None

    def run_step(self):
        assert self.model.training, f"[{type(self).__name__}] the model is in eval mode"
        start = time.perf_counter()
        if self._batches is None:  # as late as here: worker processes start with the first step
            self._batches = iter(self.data_loader)
        data = next(self._batches)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._autocast():
            losses = self.model(data)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values())
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(total)
        self.after_backward()
        if (self.iter + 1) % self.gather_metric_period == 0:
            if self.async_write_metrics:
                metrics = (losses, data_time, self.iter)
                self.concurrent_executor.submit(self.write_metrics, *metrics)
            else:
                self.write_metrics(losses, data_time, self.iter)
        self._step()

    def _autocast(self):
        return contextlib.nullcontext()

    def _backward(self, loss):
        loss.backward()

    def _step(self):
        self.optimizer.step()

    def reset_data_loader(self, data_loader_builder):
        """Throw the data loader away and take `data_loader_builder()` from the next step on."""
        self.data_loader = self._batches = None
        self.data_loader = data_loader_builder()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Put the losses, averaged over all ranks, into the event storage of the main process.

        Raises FloatingPointError where their sum is not finite.
        """
        metrics = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        of_ranks = comm.gather({**metrics, "data_time": data_time})
        if not comm.is_main_process():
            return
        # The slowest loader is what the others wait for.
        slowest = max(of_rank.pop("data_time") for of_rank in of_ranks)
        storage.put_scalar("data_time", slowest, cur_iter=cur_iter)
        means = {
            name: float(np.mean([of_rank[name] for of_rank in of_ranks])) for name in of_ranks[0]
        }
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {means}"
            )
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)

    def after_train(self):
        super().after_train()
        self.concurrent_executor.shutdown(wait=True)

    def state_dict(self):
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """SimpleTrainer in mixed precision: autocast to `precision`, gradients scaled."""

    def __init__(
        self, model, data_loader, optimizer, gather_metric_period=1, zero_grad_before_forward=False,
        grad_scaler=None, precision: torch.dtype = torch.float16, log_grad_scaler: bool = False,
        async_write_metrics=False,
    ):  # fmt: skip
        super().__init__(
            model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward,
            async_write_metrics,
        )  # fmt: skip
        self.grad_scaler = grad_scaler or torch.amp.GradScaler("cuda")
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def _autocast(self):
        return torch.autocast(next(self.model.parameters()).device.type, dtype=self.precision)

    def _backward(self, loss):
        self.grad_scaler.scale(loss).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _step(self):
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self):
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
