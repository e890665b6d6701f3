"""What the solvers of both engines share: the polynomial schedule, and gradient clipping."""

from fvcore.common.config import CfgNode
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .errors import unknown_name

CLIPPERS = {
    "full_model": lambda parameters, clip: nn.utils.clip_grad_norm_(
        parameters, clip.CLIP_VALUE, clip.NORM_TYPE
    ),
    "norm": lambda parameters, clip: [
        nn.utils.clip_grad_norm_(parameter, clip.CLIP_VALUE, clip.NORM_TYPE)
        for parameter in parameters
    ],
    "value": lambda parameters, clip: nn.utils.clip_grad_value_(parameters, clip.CLIP_VALUE),
}


def clip_before_step(optimizer: Optimizer, clip: CfgNode) -> None:
    """Clip before every step, as SOLVER.CLIP_GRADIENTS (`clip`) says.

    By then gradients are accumulated, and AMP's scale is undone. "full_model" limits the norm of
    all gradients together, "norm" that of each parameter, "value" each number. A CLIP_VALUE of 0
    clips nothing.
    """
    if not clip.ENABLED or clip.CLIP_VALUE <= 0:
        return
    if clip.CLIP_TYPE not in CLIPPERS:
        raise unknown_name("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, CLIPPERS)
    clipper = CLIPPERS[clip.CLIP_TYPE]

    def clip_gradients(optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        with_gradient = [p for p in parameters if p.grad is not None]
        if with_gradient:  # else torch's clip_grad_value_ fails
            clipper(with_gradient, clip)

    optimizer.register_step_pre_hook(clip_gradients)


class WarmupPolyLR(LRScheduler):
    """lr = base * warmup * (1 - iteration / max_iters) ** power.

    After the warmup the rate stays at base * `constant_ending` once it would fall below that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
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

    @classmethod
    def from_config(cls, cfg: CfgNode, optimizer: Optimizer) -> "WarmupPolyLR":
        solver = cfg.SOLVER
        return cls(
            optimizer,
            solver.MAX_ITER,
            warmup_factor=solver.WARMUP_FACTOR,
            warmup_iters=solver.WARMUP_ITERS,
            warmup_method=solver.WARMUP_METHOD,
            power=solver.POLY_LR_POWER,
            constant_ending=solver.POLY_LR_CONSTANT_ENDING,
        )

    def get_lr(self) -> list[float]:
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
