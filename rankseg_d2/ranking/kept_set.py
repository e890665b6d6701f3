"""Which categories, and how many, a training step keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import short
from .ranking import check_topk

Schedule = Sequence[tuple[int, int]]  # (iteration, κ), by rising iteration


def with_absent(scores: Tensor, present: Tensor, k: int, random_share: float) -> Tensor:
    """The present categories and as many absent ones as make κ: (B, C), (B, C) bool -> (B, C) bool.

    Of the absent ones, `random_share` are random, and the others those with the best scores.
    """
    check_topk(k, scores.shape[1])
    left = (k - present.sum(dim=1, keepdim=True)).clamp(min=0)  # (B, 1)
    best = left - (random_share * left).round().long()
    is_best = ~present & (_places(scores.masked_fill(present, -torch.inf)) < best)
    drawn = torch.rand_like(scores, dtype=torch.float).masked_fill(present | is_best, -torch.inf)
    return present | is_best | (_places(drawn) < left - best)


def topk_at(schedule: Schedule, iteration: int | None) -> int:
    """κ in an iteration: on the line between two points, and as at the first and last outside."""
    before, after = schedule[0], schedule[-1]
    if iteration is None or iteration >= after[0]:
        return after[1]
    for point in schedule:
        if iteration < point[0]:
            after = point
            break
        before = point
    length = max(after[0] - before[0], 1)
    return round(before[1] + (after[1] - before[1]) * max(iteration - before[0], 0) / length)


def check_schedule(schedule: Schedule, most: int | None = None, name: str = "schedule") -> None:
    """Raise ValueError unless iterations rise, and κ is in [1, most] everywhere."""
    iterations = [iteration for iteration, _ in schedule]
    if iterations != sorted(set(iterations)):
        raise ValueError(f"{name} must have rising iterations; got {short(iterations)}.")
    wrong = [k for _, k in schedule if k < 1 or (most is not None and k > most)]
    if wrong:
        range_ = "at least 1" if most is None else f"in [1, {most}], the number of classes"
        raise ValueError(f"each κ of {name} must be {range_}; got {wrong[0]}.")


def _places(scores: Tensor) -> Tensor:
    """The place of each value in its row, from 0, by falling value: (B, C) -> (B, C)."""
    order = scores.detach().argsort(dim=1, descending=True, stable=True)
    numbers = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, numbers)
