"""Choose κ or the threshold for a wanted recall, with a guarantee for new images.

Conformal risk control (Angelopoulos et al., 2022): n labelled images that the model was not trained
on, and a rule with one knob that keeps more and more categories. An image's risk is the share of
its categories, or of its pixels, that are not kept; it can only fall when more is kept. Choose
the smallest set for which

    n / (n + 1) * (mean risk of the n images) + 1 / (n + 1) <= α = 1 - recall.

Then the expected risk of a new image of the same kind is at most α. The expectation is over the
n images and the new one; no assumption is made on the model or on the distribution of the images.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .ranking import check_topk, rank

UNITS = ("categories", "pixels")
_ROUNDING = 1e-12  # so that 1 - 0.9 allows 1 / 10
# A threshold is lower by this share than the lowest probability that it must keep, because another
# device rounds probabilities in another way.
_BELOW = 1e-6


@dataclass(frozen=True)
class Rule:
    """Keep the best `topk` categories or, with a threshold, those of them that are above it.

    These are the options of the same names of a `Ranker`.
    """

    recall: float  # that was asked for
    topk: int
    threshold: float | None  # a probability; 0: keep all topk; None: the rule has no threshold
    unit: str  # whose recall it is: of an image's "categories", or of its "pixels"
    images: int  # on which it was chosen
    observed_recall: float  # on these images
    kept: float  # mean number of categories that are kept on these images

    def __post_init__(self) -> None:
        check_recall(self.recall)
        check_unit(self.unit)
        if type(self.topk) is not int or self.topk < 1:
            raise ValueError(f"the topk of a rule must be a whole number above 0; got {self.topk}.")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"the threshold of a rule must be in [0, 1); got {self.threshold}.")

    @property
    def by(self) -> str:
        """Which of the two was chosen: "topk" or "threshold"."""
        return "topk" if self.threshold is None else "threshold"

    def sentence(self) -> str:
        """The guarantee, in words."""
        return (
            f"On a new image like these {self.images}, at least {100 * self.recall:g} % of the "
            f"image's {self.unit} are kept, on average over such images and over the choice of "
            f"the {self.images}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, from which `Rule(**content)` makes the rule again."""
        return asdict(self)


def image_shares(present: Tensor, pixels: Tensor | None = None) -> Tensor:
    """What each category's loss costs: (N, C) float64, rows sum to 1, or 0 without a category.

    Args:
        present: (N, C) bool, the categories of each image.
        pixels: (N, C), how many pixels each has; then a category weighs by them, else all alike.
    """
    weights = present.double() if pixels is None else pixels.double() * present.bool()
    if not (weights >= 0).all():
        raise ValueError("numbers of pixels must be 0 or more, and not NaN.")
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def images_needed(recall: float) -> int:
    """The least number of images on which a rule for this recall can be chosen."""
    check_recall(recall)
    return math.ceil(1 / (1 - recall) - 1 - 1e-9)


def choose_topk(
    scores: Tensor, shares: Tensor, recall: float, topk: int, unit: str = "categories"
) -> Rule:
    """The smallest κ, of at most `topk`, for the wanted recall.

    Args:
        scores: (N, C) of the multi-label head, of labelled images.
        shares: (N, C) of `image_shares`, by categories or by pixels, which `unit` says.
        topk: the κ that the model was trained with.
    """
    ranks = _ranks(scores, shares, recall, topk)
    level = _highest_level(_levels(-ranks, ranks, topk), shares, recall, topk, unit)
    k = 1 if math.isinf(level) else 1 - int(level)
    return _rule(ranks < k, shares, recall, unit, k, None)


def choose_threshold(
    scores: Tensor, shares: Tensor, recall: float, topk: int, unit: str = "categories"
) -> Rule:
    """The highest threshold for the wanted recall; at most `topk` are kept, and at least the best.

    The arguments are those of `choose_topk`. The threshold applies to sigmoid(scores).
    """
    probabilities = scores.sigmoid()
    ranks = _ranks(probabilities, shares, recall, topk)  # among equal ones as `Ranker` ranks them
    levels = _levels(probabilities, ranks, topk)
    level = _highest_level(levels, shares, recall, topk, unit)
    threshold = min(level, 1.0) * (1 - _BELOW)
    kept = levels > threshold if threshold > 0 else ranks < topk
    return _rule(kept, shares, recall, unit, topk, threshold)


def check_recall(recall: float) -> None:
    if not 0 < recall < 1:
        raise ValueError(
            f"a recall must be between 0 and 1, such as 0.95; got {recall}. Only keeping every "
            "category guarantees a recall of 1."
        )


def check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"the recall is one of {' or '.join(UNITS)}, not of {unit!r}.")


def _ranks(scores: Tensor, shares: Tensor, recall: float, topk: int) -> Tensor:
    """The rank of each category, from 0: (N, C); raises what is wrong with the arguments."""
    if scores.dim() != 2 or scores.shape != shares.shape:
        raise ValueError(
            f"scores and shares must be (images, categories); got {tuple(scores.shape)} and "
            f"{tuple(shares.shape)}."
        )
    if scores.isnan().any():
        raise ValueError("the scores have NaN; the model that gave them has diverged.")
    check_topk(topk, scores.shape[1])
    needed = images_needed(recall)
    if len(scores) < needed:
        most = len(scores) / (len(scores) + 1)
        raise ValueError(
            f"a recall of {recall:g} needs at least {needed} labelled images, but there are "
            f"{len(scores)}; label more, or ask for a recall of at most {_floor(most)}."
        )
    index = rank(scores, scores.shape[1]).index  # (N, C)
    return torch.empty_like(index).scatter_(
        1, index, torch.arange(scores.shape[1]).expand_as(index)
    )


def _levels(values: Tensor, ranks: Tensor, topk: int) -> Tensor:
    """(N, C): a category is kept down to its value; the best always, those after topk never."""
    levels = values.double().masked_fill(ranks >= topk, -math.inf)
    return levels.masked_fill(ranks == 0, math.inf)


def _highest_level(levels: Tensor, shares: Tensor, recall: float, topk: int, unit: str) -> float:
    """The highest level at which keeping all categories with that level or more is enough."""
    count = len(levels)
    allowed = (1 - recall) * (count + 1) - 1 + _ROUNDING * count  # of the sum of the risks
    costs = shares > 0
    values, order = levels[costs].sort(descending=True)
    lost = shares.sum() - shares[costs][order].cumsum(0)  # if all up to this one are kept
    enough = (lost <= allowed) & (values > -math.inf)
    if shares.sum() <= allowed:
        return math.inf
    if not enough.any():
        risk = shares[levels == -math.inf].sum().item()
        most = 1 - (risk + 1) / (count + 1)
        raise ValueError(
            f"a recall of {recall:g} of the {unit} cannot be guaranteed: even all {topk} "
            f"categories that the model can keep allow at most {_floor(most)} on these {count} "
            "images; ask for less, or train with a larger κ."
        )
    return values[enough.nonzero()[0, 0]].item()


def _rule(
    kept: Tensor, shares: Tensor, recall: float, unit: str, topk: int, threshold: float | None
) -> Rule:
    some = shares.sum(1) > 0  # an image without a category has no recall
    observed = (kept * shares).sum(1)[some].mean().item() if some.any() else 1.0
    number = kept.sum(1).double().mean().item()
    return Rule(recall, topk, threshold, unit, len(kept), observed, number)


def _floor(share: float) -> float:
    """With three digits, not rounded up."""
    return max(0.0, math.floor(1000 * share + 1e-9) / 1000)
