"""Floating-point types."""

import torch
from torch import Tensor


def at_least_float(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
