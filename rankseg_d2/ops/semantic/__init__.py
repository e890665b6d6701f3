"""The best class of each pixel, from the masks and the class probabilities of queries."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from ..library import BUILD, WHY_NOT

_is_on = ContextVar("best_classes is used", default=True)


def why_not() -> str | None:
    """Why `best_classes` cannot run; None if it can."""
    if WHY_NOT is None and not hasattr(torch.ops.rankseg_d2, "best_classes"):
        return f"the compiled part is older than this operation; build it again: {BUILD}"
    return WHY_NOT


def serves(masks: Tensor) -> bool:
    """Whether `best_classes` takes these masks: on a CPU, without a gradient."""
    needs_gradient = masks.requires_grad and torch.is_grad_enabled()
    on_cpu = masks.device.type == "cpu"
    return on_cpu and not needs_gradient and _is_on.get() and why_not() is None


@contextlib.contextmanager
def by_whole_maps() -> Iterator[None]:
    """Label maps are made without `best_classes` here, by operations that can be counted."""
    before = _is_on.set(False)
    try:
        yield
    finally:
        _is_on.reset(before)


def best_classes(
    masks: Tensor,
    weights: Tensor,
    padded: tuple[int, int],
    image: tuple[int, int],
    output: tuple[int, int],
    resize_first: bool,
    with_scores: bool,
) -> tuple[Tensor, Tensor | None]:
    """The best of K > 0 classes at each pixel (H, W), the first of equal ones, and scores.

    Tile by tile, so that no map of a query or a class has the size of the image.

    Args:
        masks: logits (Q, h, w).
        weights: (K, Q); a class's score is the sum of weight times the sigmoid of a mask.
        padded, image, output: sizes of the network's input, of the image in it, of the result.
        resize_first: the sigmoid is taken at the size of the output, else at that of the input.
        with_scores: the scores (K, H, W) too; else None.
    """
    sizes = [*padded, *image, *output]
    labels, scores = torch.ops.rankseg_d2.best_classes(
        masks, weights.to(masks.dtype), sizes, resize_first, with_scores
    )
    return labels, scores if with_scores else None
