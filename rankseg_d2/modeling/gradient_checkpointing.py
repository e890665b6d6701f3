"""Gradient checkpointing: less memory in training, for more time."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from detectron2.layers import Conv2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..transformer_block import Block


def run_layer(layer: Callable[..., Any], *inputs: Any, use_checkpoint: bool) -> Any:
    """layer(*inputs). With `use_checkpoint` the backward pass computes the layer again."""
    if use_checkpoint:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def compute_again(layers: Iterable[nn.Module]) -> None:
    """Let the backward pass compute each of these layers again, whoever calls them."""
    for layer in layers:
        layer.forward = partial(_forward, layer)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: innermost members of lists, with several weighted parts."""
    lists = [part for part in model.modules() if isinstance(part, (nn.Sequential, nn.ModuleList))]
    blocks = {member for members in lists for member in members if _weighted_parts(member) > 1}
    return [block for block in blocks if not blocks & set(list(block.modules())[1:])]


def head_layers(head: nn.Module) -> list[nn.Module]:
    """The convolutions with a norm, and the transformer blocks."""
    return [
        part
        for part in head.modules()
        if isinstance(part, Block) or (isinstance(part, Conv2d) and part.norm is not None)
    ]


def _weighted_parts(module: nn.Module) -> int:
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())


def _forward(layer: nn.Module, *inputs: Any, **options: Any) -> Any:
    forward = type(layer).forward
    if not layer.training:
        return forward(layer, *inputs, **options)
    contexts = partial(_contexts, layer)
    return checkpoint(forward, layer, *inputs, use_reentrant=False, context_fn=contexts, **options)


def _contexts(layer: nn.Module) -> tuple[contextlib.AbstractContextManager, ...]:
    return contextlib.nullcontext(), _statistics_kept(layer)


@contextlib.contextmanager
def _statistics_kept(layer: nn.Module) -> Iterator[None]:
    """Batch norms, which have counted this batch before, do not count it again."""
    norms = [part for part in layer.modules() if isinstance(part, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
