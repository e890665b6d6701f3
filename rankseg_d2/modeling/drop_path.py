"""Stochastic depth (Huang et al., ECCV 2016)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """The branch (B, ...), in training set to zero for a random part of the batch."""
    if not training or rate == 0:
        return branch
    kept = branch.new_empty(len(branch), *[1] * (branch.dim() - 1)).bernoulli_(1 - rate)
    return branch * (kept / (1 - rate))


def drop_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """The rate of each block of each stage: deeper blocks are dropped more often."""
    rates = torch.linspace(0, last, sum(depths), device="cpu").split(list(depths))
    return [stage.tolist() for stage in rates]
