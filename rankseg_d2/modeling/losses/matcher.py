"""Matching of queries with ground-truth objects: the cheapest assignment, of all layers at once.

Targets are a list with one dict per image: `labels` (N,), `masks` (N, T, H, W), and optionally
`file_name` for error messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...dtypes import at_least_float
from .points import pad_to_common_size, point_sample, sample_targets

# The most numbers in one temporary tensor, for a CPU's cache and for a GPU's memory.
CPU_CHUNK, GPU_CHUNK = 2**21, 2**27
LOSSES = {"class": "loss_ce", "mask": "loss_mask", "dice": "loss_dice"}  # of the costs' terms


@dataclass(frozen=True)
class HungarianMatcher:
    """Cost = cost_class * class + cost_mask * mask + cost_dice * dice.

    With `num_points` (Mask2Former) masks are compared at random points, by sigmoid cross-entropy.
    With None (MaskFormer) they are compared at all pixels, by sigmoid focal loss.
    """

    cost_class: float
    cost_mask: float
    cost_dice: float
    num_points: int | None

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        masks: Sequence[Tensor],
        targets: list[dict],
        points: Tensor | None = None,
    ) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """(query, object) index arrays [layer][image], min(Q, N) pairs each, by rising query.

        Args:
            logits: (layers, B, Q, C+1).
            masks: per layer (B, Q, T, h, w).
            points: (P, 2), instead of random ones. All layers and images share their points.

        The costs of all layers and images leave the device in one copy.
        """
        from scipy.optimize import linear_sum_assignment

        terms = self.costs(logits, masks, targets, points)
        costs = sum(terms.values()).cpu().numpy()  # (layers, B, Q, largest N)
        matches = []
        for layer, of_layer in enumerate(costs):
            matches.append([])
            for image, target in enumerate(targets):
                cost = of_layer[image, :, : len(target["labels"])]  # (Q, N)
                if not np.isfinite(cost).all():
                    _raise_not_finite(terms, layer, image, target)
                matches[-1].append(linear_sum_assignment(cost))
        return matches

    def costs(
        self,
        logits: Tensor,
        masks: Sequence[Tensor],
        targets: list[dict],
        points: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted costs by term, (layers, B, Q, N); N is the largest of the batch.

        Columns after an image's own N have no meaning. Arguments as in `__call__`.
        """
        with torch.autocast(logits.device.type, enabled=False):
            class_costs = _class_costs(at_least_float(logits), targets)
            mask_costs, dice_costs = self._mask_costs(masks, targets, points)
        return {
            "class": self.cost_class * class_costs,
            "mask": self.cost_mask * mask_costs,
            "dice": self.cost_dice * dice_costs,
        }

    def _mask_costs(
        self, masks: Sequence[Tensor], targets: list[dict], points: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        true_masks = [target["masks"] for target in targets]
        queries, _, *size = masks[0].shape[1:]
        if self.num_points is None:
            resized = [F.interpolate(m.float(), size) for m in pad_to_common_size(true_masks)]
            true_values = torch.cat(resized).flatten(1)  # (sum of N, T*h*w)
            pairwise_mask = pairwise_sigmoid_focal
        else:
            if points is None:
                points = torch.rand(self.num_points, 2, device=masks[0].device)
            true_values = sample_targets(true_masks, points).flatten(1)  # (sum of N, T*P)
            pairwise_mask = pairwise_sigmoid_ce
        # (B, N, values of one mask): images with fewer objects are padded
        true_values = pad_sequence(true_values.split([len(m) for m in true_masks]), True)

        images_at_once = max(1, chunk_size(true_values) // (queries * true_values.shape[-1]))
        mask_costs, dice_costs = [], []
        for layer in masks:
            for some, true in zip(
                layer.split(images_at_once), true_values.split(images_at_once), strict=True
            ):
                values = at_least_float(some)
                if self.num_points is not None:
                    values = point_sample(values.flatten(0, 2), points)  # (b*Q*T, P)
                values = values.reshape(len(some), queries, -1)  # (b, Q, values of one mask)
                mask_costs.append(pairwise_mask(values, true.to(values.dtype)))
                dice_costs.append(pairwise_dice(values, true.to(values.dtype)))
        shape = (len(masks), len(targets))
        return tuple(torch.cat(costs).unflatten(0, shape) for costs in (mask_costs, dice_costs))


def pairwise_sigmoid_ce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of every pair: (B, Q, P), (B, N, P) -> (B, Q, N)."""
    # -log(1 - sigmoid(x)), the loss where the target is 0; far faster on CPUs than softplus(x)
    if_zero = logits.clamp(min=0).sub_(logits.abs().sigmoid_().log_())
    costs = if_zero.sum(-1, keepdim=True) - logits @ targets.mT
    return costs / logits.shape[-1]


def pairwise_sigmoid_focal(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Mean sigmoid focal loss of every pair: (B, Q, P), (B, N, P) -> (B, Q, N)."""
    probability = logits.sigmoid()
    if_one = alpha * (1 - probability) ** gamma * F.softplus(-logits)
    if_zero = (1 - alpha) * probability**gamma * F.softplus(logits)
    costs = if_zero.sum(-1, keepdim=True) + (if_one - if_zero) @ targets.mT
    return costs / logits.shape[-1]


def pairwise_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - dice coefficient of every pair: (B, Q, P), (B, N, P) -> (B, Q, N)."""
    probability = logits.sigmoid()
    overlap = 2 * probability @ targets.mT
    total = probability.sum(-1, keepdim=True) + targets.sum(-1)[..., None, :]
    return 1 - (overlap + 1) / (total + 1)


def chunk_size(tensor: Tensor) -> int:
    """How many numbers a temporary tensor should hold on this tensor's device."""
    return CPU_CHUNK if tensor.device.type == "cpu" else GPU_CHUNK


def _class_costs(logits: Tensor, targets: list[dict]) -> Tensor:
    """Minus the probability of each object's class: (layers, B, Q, C+1) -> (layers, B, Q, N)."""
    labels = pad_sequence([target["labels"] for target in targets], True)  # (B, N)
    labels = labels[None, :, None].expand(*logits.shape[:3], -1)  # (layers, B, Q, N)
    return -logits.softmax(-1).gather(-1, labels)


def layer_suffix(layer: int, last: int) -> str:
    """The end of the names of a layer's losses: a number, except for the last layer."""
    return "" if layer == last else f"_{layer}"


def _raise_not_finite(terms: dict[str, Tensor], layer: int, image: int, target: dict) -> None:
    count = len(target["labels"])
    suffix = layer_suffix(layer, len(terms["class"]) - 1)
    bad = [
        f"{LOSSES[name]}{suffix}"
        for name, costs in terms.items()
        if not costs[layer, image, :, :count].isfinite().all()
    ]
    raise RuntimeError(
        f"image {image} of the batch ({target.get('file_name', 'no file name')}): the "
        f"matching costs of {' and '.join(bad)} are not finite, so that no matching exists; the "
        "model has diverged or overflowed: lower SOLVER.BASE_LR, clip gradients, or train with "
        "bfloat16 or without AMP"
    )
