"""Multi-label losses, and the multi-hot targets they need. Computed in float32 or better."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dtypes import at_least_float


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_neg: float = 2.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    eps: float = 1e-5,
) -> Tensor:
    """Asymmetric loss of logits (B, C) against multi-hot targets (B, C): summed, over B * C.

    An absent category's probability is shifted down by `clip`, so easy negatives cost nothing.
    Gradients flow through the focusing weights too.
    """
    _check_shapes(logits, targets)
    prob = at_least_float(logits).sigmoid()
    not_prob = (1 - prob + clip).clamp(max=1)
    present = (1 - prob).pow(gamma_pos) * prob.clamp(min=eps).log()
    absent = (1 - not_prob).pow(gamma_neg) * not_prob.clamp(min=eps).log()
    return -torch.where(targets.bool(), present, absent).sum() / max(logits.numel(), 1)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, C) against multi-hot targets (B, C), over B * C."""
    _check_shapes(logits, targets)
    logits = at_least_float(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
    return loss / max(logits.numel(), 1)


LOSSES = {
    "asymmetric": asymmetric_loss,
    "shifted_bce": partial(asymmetric_loss, gamma_neg=0.0),  # without focusing: ASL(0, 0)
    "bce": binary_cross_entropy,
}


def multi_hot(labels: Sequence[Tensor] | Tensor, num_classes: int) -> Tensor:
    """Which categories are present in each image: B tensors of category ids -> (B, C) bool.

    The tensors are the targets' labels (N,) or whole label maps, of any integer type and any sizes.
    Give label maps at their native size: resizing makes small objects vanish. Values that are no
    category (255, 65535, -1) are ignored.
    """
    device = labels[0].device if len(labels) else None
    present = torch.zeros(len(labels), num_classes + 1, dtype=torch.bool, device=device)
    for row, ids in zip(present, labels, strict=True):
        ids = ids.flatten().long()
        row.index_fill_(0, ids.where((ids >= 0) & (ids < num_classes), num_classes), True)
    return present[:, :num_classes]


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    if logits.shape != targets.shape:
        raise ValueError(
            f"multi-label logits and targets must have one shape (B, C), but have "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}; is NUM_CLASSES that of the data?"
        )
