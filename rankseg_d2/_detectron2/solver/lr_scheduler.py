"""Learning rate schedules by iteration, from fvcore's schedules by progress in [0, 1]."""

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """`scheduler` with a warmup in the first `warmup_length` of the progress.

    The warmup leads, at a constant value or linearly, from `warmup_factor` times the first value
    to where the scheduler is then. `rescale_interval`: the scheduler starts after the warmup and
    is squeezed into the rest, instead of being cut off at its beginning.
    """

    def __init__(
        self,
        scheduler,
        warmup_factor,
        warmup_length,
        warmup_method="linear",
        rescale_interval=False,
    ):
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        elif warmup_method == "linear":
            end = scheduler(0.0 if rescale_interval else warmup_length)
            warmup = LinearParamScheduler(start, end)
        else:
            raise ValueError(
                f"SOLVER.WARMUP_METHOD is 'linear' or 'constant', but {warmup_method!r} came"
            )
        super().__init__(
            [warmup, scheduler],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
            lengths=[warmup_length, 1 - warmup_length],
        )


class LRMultiplier(LRScheduler):
    """Multiplies every group's learning rate by `multiplier(iteration / max_iter)`."""

    def __init__(self, optimizer, multiplier, max_iter, last_iter=-1):
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(
                "LRMultiplier's multiplier must be an instance of fvcore's ParamScheduler, but "
                f"{multiplier!r} came"
            )
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self):
        """Only what cfg does not define: a resumed run may have another schedule."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self):
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
