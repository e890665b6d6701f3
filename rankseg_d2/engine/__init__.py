"""Training: launch, setup, trainer, checkpoints, and a resume that continues exactly."""

from .checkpoint import Checkpointer
from .launch import launch
from .resume import ResumableLoader, build_train_loader
from .trainer import BestCheckpointer, Trainer, setup

__all__ = [
    "BestCheckpointer",
    "Checkpointer",
    "ResumableLoader",
    "Trainer",
    "build_train_loader",
    "launch",
    "setup",
]
