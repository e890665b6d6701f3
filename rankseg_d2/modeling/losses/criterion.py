"""The set loss: classes and masks of queries that are matched with ground-truth objects."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...dtypes import at_least_float
from ..family import is_mask2former
from ..outputs import MaskPredictions
from .matcher import HungarianMatcher, chunk_size, layer_suffix
from .points import (
    choose_points,
    draw_pool,
    pad_to_common_size,
    point_sample,
    sample_targets,
)


class SetCriterion(nn.Module):
    """Weighted `loss_ce`, `loss_mask`, `loss_dice`, and `_0`, `_1`, ... for auxiliary layers.

    It knows logits (B, Q, C+1), masks (B, Q, T, h, w) and targets, but no data sets and no ranks.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        loss_weights: dict[str, float],
        no_object_weight: float = 0.1,
        num_points: int | None = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        deep_supervision: bool = True,
    ):
        """
        Args:
            loss_weights: of "loss_ce", "loss_mask", "loss_dice".
            num_points: points per mask and frame, cross-entropy and dice (Mask2Former), or None:
                all pixels of the target's size, focal loss and dice (MaskFormer).
            oversample_ratio: random candidates per point.
            importance_ratio: the share of the points that are the least certain candidates.
            deep_supervision: whether auxiliary layers have losses.
        """
        super().__init__()
        if oversample_ratio < 1 or not 0 <= importance_ratio <= 1:
            raise ValueError(
                "MODEL.MASK_FORMER.OVERSAMPLE_RATIO must be at least 1 and IMPORTANCE_SAMPLE_RATIO "
                f"within [0, 1], they are {oversample_ratio} and {importance_ratio}"
            )
        if num_points is not None and num_points < 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS must be at least 1, but is {num_points}; "
                "Mask2Former has 12544"
            )
        self.matcher = matcher
        self.loss_weights = loss_weights
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio
        self.deep_supervision = deep_supervision
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.register_buffer("empty_weight", class_weights)

    def forward(
        self, outputs: MaskPredictions, targets: list[dict], points: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses by name, already weighted, each a scalar.

        Args:
            outputs: with class logits.
            targets: per image `labels` (N,), `masks` (N, T, H, W), optionally `file_name`; N may be
                0. Masks of different sizes are padded at the right and the bottom.
            points: (P, 2) in [0, 1], used by matcher and losses instead of random ones.
        """
        first = 0 if self.deep_supervision else len(outputs.masks) - 1
        masks = outputs.masks[first:]
        with torch.autocast(outputs.logits.device.type, enabled=False):
            logits = at_least_float(outputs.logits[first:])  # (layers, B, Q, C+1)
            matches = self.matcher(logits, masks, targets, points)
            queries, objects = _flat_indices(matches, targets, logits)  # (layers, pairs) each
            rows = torch.stack(  # (layers, pairs, T, h, w)
                [
                    at_least_float(layer.flatten(0, 1).index_select(0, index))
                    for layer, index in zip(masks, queries, strict=True)
                ]
            )
            loss_mask, loss_dice = self._mask_losses(rows, objects, targets, points)
            num_masks = mean_over_ranks(sum(len(target["labels"]) for target in targets), rows)
            losses = {
                "loss_ce": self._class_losses(logits, queries, objects, targets),
                "loss_mask": loss_mask / num_masks,
                "loss_dice": loss_dice / num_masks,
            }
        last = len(masks) - 1
        return {
            name + layer_suffix(i, last): self.loss_weights[name] * by_layer[i]
            for i in (last, *range(last))
            for name, by_layer in losses.items()
        }

    def _class_losses(
        self, logits: Tensor, queries: Tensor, objects: Tensor, targets: list[dict]
    ) -> Tensor:
        """Weighted mean cross-entropy of each layer; queries without an object target no-object."""
        num_layers, *_, columns = logits.shape
        logits = logits.flatten(1, 2)  # (layers, B*Q, C+1)
        labels = torch.cat([target["labels"] for target in targets])
        classes = torch.full(logits.shape[:2], columns - 1, device=logits.device)
        classes.scatter_(1, queries, labels[objects])
        # Ranked logits have fewer columns than there are classes; the last is still no-object.
        weights = torch.cat([self.empty_weight[: columns - 1], self.empty_weight[-1:]])
        weights = weights.to(logits.dtype)
        losses = F.cross_entropy(
            logits.flatten(0, 1), classes.flatten(), weights, reduction="none"
        ).unflatten(0, (num_layers, -1))
        return losses.sum(1) / weights[classes].sum(1)

    def _mask_losses(
        self, rows: Tensor, objects: Tensor, targets: list[dict], points: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mask and dice loss of each layer, summed over its pairs and frames: (layers,) each."""
        num_layers, num_pairs, frames = rows.shape[:3]
        rows = rows.flatten(0, 2)  # (layers * pairs * T, h, w)
        # The index of each row's true mask among all images' masks and frames.
        index = (objects[..., None] * frames + torch.arange(frames, device=rows.device)).flatten()
        true_masks = [target["masks"] for target in targets]
        if self.num_points is None:
            pairs, mask_loss = _at_all_pixels(rows, index, true_masks), sigmoid_focal_loss
        else:
            pairs, mask_loss = self._at_points(rows, index, true_masks, points), sigmoid_ce_loss
        losses = [(mask_loss(*pair), dice_loss(*pair)) for pair in pairs]
        return tuple(
            torch.cat(parts).view(num_layers, num_pairs * frames).sum(1)
            for parts in zip(*losses, strict=True)
        )

    def _at_points(
        self, rows: Tensor, index: Tensor, true_masks: list[Tensor], points: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and true values at points, (some rows, P) each, some rows at a time."""
        pool = points
        if points is None:
            pool = draw_pool(
                self.num_points, self.oversample_ratio, self.importance_ratio, rows.device
            )
        true_values = sample_targets(true_masks, pool).flatten(0, 1)  # (sum of N * T, pool)
        rows_at_once = max(1, chunk_size(rows) // len(pool))
        for some, own in zip(rows.split(rows_at_once), index.split(rows_at_once), strict=True):
            if points is None:
                chosen = choose_points(some, pool, self.num_points, self.importance_ratio)
                at = F.embedding(chosen, pool)  # (some, P, 2)
                true = true_values.take(chosen + len(pool) * own[:, None])
            else:
                at, true = pool, true_values.index_select(0, own)
            yield point_sample(some, at), true.to(some.dtype)


def sigmoid_ce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of each row: (N, P), (N, P) -> (N,)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Mean sigmoid focal loss of each row: (N, P), (N, P) -> (N,)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability * (1 - targets) + (1 - probability) * targets
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return (balance * wrong**gamma * cross_entropy).mean(1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - dice coefficient of each row: (N, P), (N, P) -> (N,)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(1)
    return 1 - (overlap + 1) / (probability.sum(1) + targets.sum(1) + 1)


def _at_all_pixels(
    rows: Tensor, index: Tensor, true_masks: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits, enlarged to the target's size, and true values, (some rows, H*W) each."""
    true_masks = torch.cat(pad_to_common_size(true_masks)).flatten(0, 1)  # (sum of N * T, H, W)
    size = true_masks.shape[-2:]
    rows_at_once = max(1, chunk_size(rows) // size.numel())
    for some, own in zip(rows.split(rows_at_once), index.split(rows_at_once), strict=True):
        logits = F.interpolate(some[:, None], size, mode="bilinear", align_corners=False)
        true = true_masks.index_select(0, own).to(some.dtype)
        yield logits.flatten(1), true.flatten(1)


def _flat_indices(
    matches: list[list[tuple[np.ndarray, np.ndarray]]], targets: list[dict], logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Pairs of (query among B*Q, object among all images' objects): (layers, pairs) each."""
    first_query = np.arange(len(targets)) * logits.shape[2]
    counts = [len(target["labels"]) for target in targets]
    first_object = np.cumsum(counts) - counts
    pairs = [
        [(q + first_query[b], n + first_object[b]) for b, (q, n) in enumerate(layer)]
        for layer in matches
    ]  # layers x B x 2 arrays
    pairs = np.stack([np.concatenate(layer, axis=1) for layer in pairs], axis=1)
    return tuple(torch.from_numpy(pairs).to(logits.device, non_blocking=True))


def mean_over_ranks(count: int | Tensor, like: Tensor, least: float = 1) -> Tensor:
    """The mean number (or sum) per rank, such as of true masks; at least `least`."""
    total = torch.zeros((), device=like.device, dtype=like.dtype) + count
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total.clamp(min=least)


def build_criterion(cfg: CfgNode) -> SetCriterion:
    """The set loss of MODEL.MASK_FORMER.*."""
    options = cfg.MODEL.MASK_FORMER
    kind = options.MASK_LOSS
    if kind not in ("auto", "points", "dense"):
        raise ValueError(f"MODEL.MASK_FORMER.MASK_LOSS must be auto, points or dense, not {kind!r}")
    if kind == "auto":
        kind = "points" if is_mask2former(cfg) else "dense"
    num_points = options.TRAIN_NUM_POINTS if kind == "points" else None
    weights = {
        "loss_ce": options.CLASS_WEIGHT,
        "loss_mask": options.MASK_WEIGHT,
        "loss_dice": options.DICE_WEIGHT,
    }
    return SetCriterion(
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        HungarianMatcher(*weights.values(), num_points=num_points),
        weights,
        options.NO_OBJECT_WEIGHT,
        num_points,
        options.OVERSAMPLE_RATIO,
        options.IMPORTANCE_SAMPLE_RATIO,
        options.DEEP_SUPERVISION,
    )
