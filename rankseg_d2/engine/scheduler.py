"""Learning rate schedules: detectron2's, and the polynomial decay that segmentation models use."""

import detectron2.solver
from detectron2.config import CfgNode
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .._solver import WarmupPolyLR
from ..errors import unknown_name

_DETECTRON2S = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule that SOLVER.LR_SCHEDULER_NAME names: detectron2's, or WarmupPolyLR."""
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name == "WarmupPolyLR":
        return WarmupPolyLR.from_config(cfg, optimizer)
    if name not in _DETECTRON2S:
        raise unknown_name("SOLVER.LR_SCHEDULER_NAME", name, ("WarmupPolyLR", *_DETECTRON2S))
    return detectron2.solver.build_lr_scheduler(cfg, optimizer)
