"""Learning rate schedules: detectron2's, and the polynomial decay that segmentation models use."""

import detectron2.solver
from torch.optim.lr_scheduler import LRScheduler

from ..errors import unknown_name

DETECTRON2S = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


def build_lr_scheduler(cfg, optimizer):
    """The schedule that SOLVER.LR_SCHEDULER_NAME names: detectron2's, or WarmupPolyLR."""
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name in DETECTRON2S:
        return detectron2.solver.build_lr_scheduler(cfg, optimizer)
    if name != "WarmupPolyLR":
        raise unknown_name("SOLVER.LR_SCHEDULER_NAME", name, ("WarmupPolyLR", *DETECTRON2S))
    return WarmupPolyLR(
        optimizer,
        solver.MAX_ITER,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_method=solver.WARMUP_METHOD,
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
    )


class WarmupPolyLR(LRScheduler):
    """lr = base * warmup * (1 - iteration / max_iters) ** power.

    After the warmup the rate stays at base * `constant_ending` once it would fall below that.
    """

    def __init__(
        self,
        optimizer,
        max_iters,
        warmup_factor=0.001,
        warmup_iters=1000,
        warmup_method="linear",
        last_epoch=-1,
        power=0.9,
        constant_ending=0.0,
    ):
        if warmup_method not in ("linear", "constant"):
            raise ValueError(
                f"SOLVER.WARMUP_METHOD is 'linear' or 'constant', but {warmup_method!r} came"
            )
        self.max_iters = max_iters
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        self.power = power
        self.constant_ending = constant_ending
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        iteration = self.last_epoch
        decay = max(1 - iteration / self.max_iters, 0.0) ** self.power
        done = min(iteration / self.warmup_iters, 1.0) if self.warmup_iters else 1.0
        if done == 1.0:
            factor = max(decay, self.constant_ending)
        elif self.warmup_method == "constant":
            factor = decay * self.warmup_factor
        else:
            factor = decay * (self.warmup_factor * (1 - done) + done)
        return [base_lr * factor for base_lr in self.base_lrs]
