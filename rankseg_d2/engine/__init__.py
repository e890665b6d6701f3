"""Training: launch, setup, trainer, checkpoints, and a resume that continues exactly."""

from .checkpoint import Checkpointer
from .launch import launch
from .resume import ResumableLoader, build_train_loader
from .trainer import BestCheckpointer, Trainer, check_run, setup

__all__ = [
    "BestCheckpointer",
    "Checkpointer",
    "ResumableLoader",
    "Trainer",
    "build_train_loader",
    "check_run",
    "launch",
    "setup",
]
