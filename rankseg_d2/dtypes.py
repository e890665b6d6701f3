"""Floating-point types."""

import torch
from torch import Tensor


def at_least_float(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_float16(device: torch.device) -> bool:
    """Whether autocast is to float16 now, whose range is small."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
