"""The best class of each pixel, from the masks and the class probabilities of queries."""

import torch
from torch import Tensor

from ..library import BUILD, WHY_NOT


def why_not() -> str | None:
    """Why `best_classes` cannot run; None if it can."""
    if WHY_NOT is None and not hasattr(torch.ops.rankseg_d2, "best_classes"):
        return f"the compiled part is older than this operation; build it again: {BUILD}"
    return WHY_NOT


def serves(masks: Tensor) -> bool:
    """Whether `best_classes` takes these masks: on a CPU, without a gradient."""
    needs_gradient = masks.requires_grad and torch.is_grad_enabled()
    return masks.device.type == "cpu" and not needs_gradient and why_not() is None


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
