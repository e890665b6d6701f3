"""Dataloaders that resume exactly, and the records that they load."""

from .loader import (
    ResumableLoader,
    batch_size_per_rank,
    build_test_loader,
    build_train_loader,
    seed_step,
)
from .records import load_records

__all__ = [
    "ResumableLoader",
    "batch_size_per_rank",
    "build_test_loader",
    "build_train_loader",
    "load_records",
    "seed_step",
]
