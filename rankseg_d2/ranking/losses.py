"""Multi-label losses, and the multi-hot targets they need. Computed in float32 or better."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..dtypes import at_least_float

_NOTHING = -1e30  # in place of a logit that is left out: its exponential is 0


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_neg: float = 2.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    eps: float = 1e-5,
    present_weight: Tensor | float = 1.0,
) -> Tensor:
    """Asymmetric loss of logits (B, C) against multi-hot targets (B, C): summed, over B * C.

    An absent category's probability is shifted down by `clip`, so easy negatives cost nothing.
    Gradients flow through the focusing weights too. `present_weight` (C,) weighs the categories
    where they are present.
    """
    _check_shapes(logits, targets)
    prob = at_least_float(logits).sigmoid()
    not_prob = (1 - prob + clip).clamp(max=1)
    present = present_weight * (1 - prob).pow(gamma_pos) * prob.clamp(min=eps).log()
    absent = (1 - not_prob).pow(gamma_neg) * not_prob.clamp(min=eps).log()
    return -torch.where(targets.bool(), present, absent).sum() / max(logits.numel(), 1)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, C) against multi-hot targets (B, C), over B * C."""
    _check_shapes(logits, targets)
    logits = at_least_float(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
    return loss / max(logits.numel(), 1)


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 + sum of exp(s) of absent) + log(1 + sum of exp(-s) of present), mean over images.

    Its gradient goes to the absent categories that score highest and the present ones that score
    lowest, however many others there are. It compares each category with 0 instead of with each
    other one, as the pairwise form does: linear in C, an image without categories counts too, and a
    score above 0 goes on to mean "present", for thresholds and calibration.
    """
    _check_shapes(logits, targets)
    logits, present = at_least_float(logits), targets.bool()
    sums = _log_sum_exp(logits, ~present, 1), _log_sum_exp(-logits, present, 1)  # (B,) each
    return sum(F.softplus(x).sum() for x in sums) / max(len(logits), 1)


def two_way_loss(
    logits: Tensor,
    targets: Tensor,
    present_temperature: float = 4.0,
    absent_temperature: float = 1.0,
) -> Tensor:
    """Two-way multi-label loss (Kobayashi, CVPR 2023) of logits (B, C), targets (B, C) multi-hot.

    Present scores are compared with absent ones: those of an image's categories, and those of a
    category's images, each a mean over the images or categories with anything present. Only
    differences of scores count, so that 0 is no boundary.
    """
    _check_shapes(logits, targets)
    logits, present = at_least_float(logits), targets.bool()
    loss = logits.new_zeros(())
    for dim in (1, 0):
        absent_high = _log_sum_exp(logits, ~present, dim, absent_temperature)
        present_low = _log_sum_exp(-logits, present, dim, present_temperature)
        count = present.any(dim).sum().clamp(min=1)
        loss = loss + F.softplus(absent_high + present_low).sum() / count
    return loss


class BalancedAsymmetricLoss(nn.Module):
    """The asymmetric loss, in which rare categories weigh more where they are present.

    The weight falls with the square root of a category's frequency, and on average over all that
    is present it is 1. Frequencies are those of the training so far: `images` counts the images
    with each category, over all processes, and is saved in checkpoints.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(num_classes, dtype=torch.long))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            self.count(targets)
        return asymmetric_loss(logits, targets, present_weight=self.weights())

    @torch.no_grad()
    def count(self, targets: Tensor) -> None:
        """Count the images (B, C) of a step."""
        found = targets.bool().sum(0)  # (C,)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        self.images += found

    def weights(self) -> Tensor:
        """The weight of each category where it is present (C,): at most 10."""
        frequency = self.images.float() + 1  # what was never seen counts as seen once
        weights = frequency.rsqrt()
        weights = weights * (frequency.sum() / (frequency * weights).sum())
        return weights.clamp(max=10)


LOSSES = {
    "asymmetric": asymmetric_loss,
    "balanced_asymmetric": BalancedAsymmetricLoss,
    "shifted_bce": partial(asymmetric_loss, gamma_neg=0.0),  # without focusing: ASL(0, 0)
    "bce": binary_cross_entropy,
    "ranking": ranking_loss,
    "two_way": two_way_loss,
}


def build_loss(name: str, num_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of this name in LOSSES; one that counts categories is a module with buffers."""
    loss = LOSSES[name]
    return loss(num_classes) if isinstance(loss, type) else loss


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


def _log_sum_exp(x: Tensor, chosen: Tensor, dim: int, temperature: float = 1.0) -> Tensor:
    """temperature * log(sum of exp(x / temperature)) over the chosen ones; very low without any."""
    return temperature * (x / temperature).where(chosen, _NOTHING).logsumexp(dim)


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    if logits.shape != targets.shape:
        raise ValueError(
            f"multi-label logits and targets must have one shape (B, C), but have "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}; is NUM_CLASSES that of the data?"
        )
