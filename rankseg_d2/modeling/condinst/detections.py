"""From the predictions at locations to the objects of an image."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from ..outputs import LocationPredictions
from .targets import boxes_of


class Detections(NamedTuple):
    """n objects of an image, best first."""

    scores: Tensor  # (n,)
    categories: Tensor  # (n,)
    locations: Tensor  # (n,) number of the location


def detect_objects(
    outputs: LocationPredictions,
    i: int,
    *,
    score_threshold: float,
    candidates: int,
    nms_threshold: float,
    count: int,
    excluded: Collection[int] = (),
) -> Detections:
    """The objects of image i: a score is the root of class probability times centerness.

    Args:
        score_threshold: of the class probability.
        candidates: so many, the best ones, take part in the suppression of boxes.
        count: how many stay, at most.
        excluded: classes that no object may have.
    """
    from torchvision.ops import batched_nms  # late, for it takes seconds

    probabilities = outputs.logits[i].float().sigmoid()  # (P, C)
    if excluded:
        numbers = torch.arange(probabilities.shape[1], device=probabilities.device)
        banned = torch.isin(numbers, numbers.new_tensor(sorted(excluded)))
        probabilities = probabilities.masked_fill(banned, -1)  # below any threshold
    centerness = outputs.centerness[i].float().sigmoid()  # (P,)
    places, categories = (probabilities > score_threshold).nonzero().unbind(1)
    scores = (probabilities[places, categories] * centerness[places]).sqrt()
    scores, order = scores.sort(descending=True, stable=True)
    scores, order = scores[:candidates], order[:candidates]
    places, categories = places[order], categories[order]
    boxes = boxes_of(outputs.locations[places], outputs.distances[i, places].float())
    kept = batched_nms(boxes, scores, categories, nms_threshold)[:count]
    return Detections(scores[kept], categories[kept], places[kept])
