"""The losses of CondInst: of an FCOS detector, of masks, and against masks that overlap."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import mean_over_ranks
from ..outputs import LocationPredictions
from .targets import NONE, Assignment, boxes_of

_EPS = 1e-5


class Positives(NamedTuple):
    """n locations that learn an object."""

    images: Tensor  # (n,) number of the image
    locations: Tensor  # (n,) number of the location
    objects: Tensor  # (n,) number of the object, counted through all images


def positives_of(assignments: list[Assignment], counts: list[int]) -> Positives:
    """The locations with an object; `counts` are the objects of each image."""
    firsts = torch.tensor([0, *counts[:-1]]).cumsum(0).tolist()
    parts = []
    for number, (assignment, first) in enumerate(zip(assignments, firsts, strict=True)):
        found = (assignment.objects != NONE).nonzero().flatten()
        parts.append((torch.full_like(found, number), found, assignment.objects[found] + first))
    return Positives(*(torch.cat(part) for part in zip(*parts, strict=True)))


def detector_losses(
    outputs: LocationPredictions,
    labels: Tensor,
    assignments: list[Assignment],
    positives: Positives,
) -> dict[str, Tensor]:
    """`loss_cls` (focal), `loss_box` (generalized IoU, by centerness), `loss_center`.

    labels: the classes of all objects of the batch (N,).
    """
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss  # takes seconds

    logits = outputs.logits.float()  # (B, P, C)
    wanted = torch.zeros_like(logits)
    images, places, objects = positives
    wanted[images, places, labels[objects]] = 1
    count = mean_over_ranks(len(images), logits)
    focal = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0, reduction="sum")
    centerness = torch.stack([one.centerness for one in assignments])[images, places]  # (n,)
    true = torch.stack([one.distances for one in assignments])[images, places]  # (n, 4)
    found = outputs.distances[images, places].float()
    here = outputs.locations[places]
    overlap = generalized_box_iou_loss(boxes_of(here, found), boxes_of(here, true))  # (n,)
    total = mean_over_ranks(centerness.sum(), logits, least=1e-6)
    guess = outputs.centerness[images, places].float()
    center = F.binary_cross_entropy_with_logits(guess, centerness, reduction="sum")
    return {
        "loss_cls": focal / count,
        "loss_box": (overlap * centerness).sum() / total,
        "loss_center": center / count,
    }


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - dice with squared sums in the denominator: (n, ...) and (n, ...) -> (n,)."""
    x, y = probabilities.flatten(1), targets.flatten(1).to(probabilities.dtype)
    return 1 - 2 * (x * y).sum(1) / (x.square().sum(1) + y.square().sum(1) + _EPS)


def mask_loss(logits: dict[str, Tensor], masks: Tensor, weights: dict[str, float]) -> Tensor:
    """The weighted sum over the paths of the mean dice loss of n masks (n, h, w)."""
    total = sum(
        weights[path] * dice_loss(one.float().sigmoid(), masks).sum()
        for path, one in logits.items()
    )
    return total / max(1, len(masks))


def overlap_loss(
    logits: Tensor, images: Tensor, objects: Tensor, masks: Tensor
) -> Tensor:
    """Dice loss of the softmax over the objects of an image, so that one of them owns a pixel.

    Images in which fewer than two objects are learnt have nothing to suppress.

    Args:
        logits: (n, h, w) of locations; those of one object are averaged.
        images, objects: (n,) of each location.
        masks: (N, h, w) of all objects.
    """
    losses = [logits.float().sum()[None] * 0]
    for image in images.unique().tolist():
        here = images == image
        present, which = objects[here].unique(return_inverse=True)
        if len(present) < 2:
            continue
        sums = logits.new_zeros(len(present), *logits.shape[1:], dtype=torch.float32)
        sums = sums.index_add(0, which, logits[here].float())
        means = sums / which.bincount(minlength=len(present))[:, None, None]
        losses.append(dice_loss(means.softmax(0), masks[present]))
    return torch.cat(losses).sum() / max(1, sum(map(len, losses)) - 1)
