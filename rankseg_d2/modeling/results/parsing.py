"""Human parsing: the parts of each person, by masks of persons and the parts of all pixels."""

import torch
from detectron2.structures import Instances
from torch import Tensor

BACKGROUND = 0  # among the classes of parts


def with_parts(
    persons: Instances, scores: Tensor, labels: Tensor, num_classes: int
) -> Instances:
    """The persons (N) with `pred_parts` (N, H, W) and `part_scores` (N, C).

    `pred_parts` has the class of each pixel of a person, 0 for background and outside of the
    person. The score of a part is the person's score times the mean probability of its pixels; 0 of
    a part that the person does not have.

    Args:
        scores, labels: of the classes of parts: (K, H, W), and the best one's id (H, W), or
            `num_classes` for none.
    """
    kind = torch.uint8 if num_classes < 2**8 else torch.int16
    parts = labels.where(labels < num_classes, BACKGROUND).to(kind)  # (H, W)
    masks = persons.pred_masks
    persons.pred_parts = parts * masks  # (N, H, W)
    persons.part_scores = scores.new_zeros(len(masks), num_classes)
    if len(scores):
        certainty = scores.amax(0) / scores.sum(0).clamp(min=1e-6)  # (H, W)
        for i, mask in enumerate(masks):  # one by one, for memory
            inside = parts[mask].long()
            totals = torch.zeros(num_classes, device=scores.device, dtype=scores.dtype)
            totals.index_add_(0, inside, certainty[mask])
            counts = inside.bincount(minlength=num_classes)
            persons.part_scores[i] = totals / counts.clamp(min=1) * persons.scores[i]
        persons.part_scores[:, BACKGROUND] = 0
    return persons
