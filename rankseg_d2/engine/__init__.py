"""Training: launch, setup, trainer, checkpoints, and a resume that continues exactly."""

from ..data.loading.loader import ResumableLoader, build_test_loader, build_train_loader
from .checkpointer import Checkpointer
from .checks import check_datasets, check_num_classes, check_run, class_names
from .console import log_results
from .ending import end_in_a_sentence
from .hooks import BestCheckpointer, HeadGuard
from .launch import launch
from .optimizer import build_optimizer
from .packing import describe, pack
from .scheduler import build_lr_scheduler
from .start import evaluate, start, train_or_evaluate
from .trainer import Trainer, setup

__all__ = [
    "BestCheckpointer",
    "Checkpointer",
    "HeadGuard",
    "ResumableLoader",
    "Trainer",
    "build_lr_scheduler",
    "build_optimizer",
    "build_test_loader",
    "build_train_loader",
    "check_datasets",
    "check_num_classes",
    "check_run",
    "class_names",
    "describe",
    "end_in_a_sentence",
    "evaluate",
    "launch",
    "log_results",
    "pack",
    "setup",
    "start",
    "train_or_evaluate",
]
