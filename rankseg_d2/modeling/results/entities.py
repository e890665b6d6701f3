"""Objects of a detector, and entities: objects that do not overlap."""

from collections.abc import Callable

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .boxes import mask_boxes
from .options import ResultOptions
from .resizing import Sizes, part_size, to_output, to_padded


def object_instances(
    scores: Tensor,
    categories: Tensor,
    masks: Tensor,
    sizes: Sizes,
    options: ResultOptions,
    enlarge: Callable[[Tensor, Sizes], Tensor] = to_padded,
) -> Instances:
    """Instances of objects, best first; with `options.entity` they do not overlap.

    Then each pixel belongs to the object with the highest score whose mask covers it, and objects
    that are left empty, or one pixel wide or high, are dropped. With `options.rescore` a score is
    multiplied by the mean mask probability inside the final mask.

    Args:
        scores, categories: (N,) each.
        masks: logits (N, 1, h, w).
        enlarge: brings masks to the size of the network's input.
    """
    scores, order = scores.sort(descending=True, stable=True)
    taken = torch.zeros(sizes.output, dtype=torch.bool, device=masks.device)
    found, certainties = [masks.new_zeros(0, *sizes.output, dtype=torch.bool)], [scores[:0]]
    parts = masks[order].split(part_size(len(order))) if len(order) else ()
    for part in parts:
        probabilities = to_output(enlarge(part, sizes), sizes).sigmoid()[:, 0]  # (n, H, W)
        inside = probabilities > 0.5
        if options.entity:
            inside, taken = _keep_free(inside, taken)
        found.append(inside)
        totals = (probabilities * inside).flatten(1).sum(1)
        certainties.append(totals / inside.flatten(1).sum(1).clamp(min=1))
    masks = torch.cat(found)
    if options.entity and options.rescore:
        scores = scores * torch.cat(certainties)
    kept = is_wide(masks) if options.entity else masks.flatten(1).any(1)
    kept &= scores >= options.score_threshold
    chosen = kept.nonzero().flatten()
    scores, best = scores[chosen].sort(descending=True, stable=True)
    chosen = chosen[best]
    masks = masks[chosen]
    return Instances(
        sizes.output,
        pred_masks=masks,
        pred_boxes=Boxes(mask_boxes(masks)),
        scores=scores,
        pred_classes=categories[order][chosen],
    )


def without_overlap(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (N, H, W) without the pixels of earlier ones, and which are more than a line (N,)."""
    masks, _ = _keep_free(masks.bool(), torch.zeros_like(masks[:1], dtype=torch.bool).any(0))
    return masks, is_wide(masks)


def is_wide(masks: Tensor) -> Tensor:
    """Whether masks (N, H, W) are more than one pixel wide and high: (N,)."""
    x0, y0, x1, y1 = mask_boxes(masks).unbind(1)
    return (x1 - x0 > 1) & (y1 - y0 > 1)


def _keep_free(masks: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (N, H, W) without pixels that are taken (H, W), by earlier ones too; what is then."""
    free = []
    for mask in masks:
        free.append(mask & ~taken)
        taken = taken | mask
    return (torch.stack(free) if free else masks), taken
