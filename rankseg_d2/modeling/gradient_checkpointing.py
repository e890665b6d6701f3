"""Gradient checkpointing: less memory in training, for more time."""

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint


def run_layer(layer: Callable[..., Any], *inputs: Any, use_checkpoint: bool) -> Any:
    """layer(*inputs). With `use_checkpoint` the backward pass computes the layer again."""
    if use_checkpoint:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
