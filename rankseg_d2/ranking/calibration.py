"""Calibration of the multi-label head: one temperature, and a bias for each category.

The head is trained to rank; its sigmoid says too much or too little. Calibrated probabilities are
sigmoid(scores / temperature + bias), with temperature and bias fitted on labelled images.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import short
from .conformal import Rule, check_recall

BINS = 15
_IMAGES_AT_ONCE = 1024  # limits the memory
_STEPS = 200  # of L-BFGS at most; it takes about 30


@dataclass(frozen=True)
class Calibration:
    """What was learnt about a trained head: its calibration, and the rules for wanted recalls.

    The rules act on the scores as the head gives them, not on calibrated ones: temperature and bias
    are fitted on the same images, and a guarantee needs images that have fitted nothing.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()  # (C,); without any, 0 for all
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf and all(map(math.isfinite, self.bias))):
            raise ValueError(
                f"a calibration has a finite temperature above 0 and finite biases; got "
                f"{short(self.temperature)} and {short(self.bias)}."
            )

    def probabilities(self, scores: Tensor) -> Tensor:
        """Calibrated probabilities of scores (..., C)."""
        if self.bias and len(self.bias) != scores.shape[-1]:
            raise ValueError(
                f"the calibration is for {len(self.bias)} categories, but the scores are of "
                f"{scores.shape[-1]}; calibrate this model with `rankseg-d2 kappa --write`."
            )
        bias = scores.new_tensor(self.bias) if self.bias else 0
        return (scores / self.temperature + bias).sigmoid()

    def rule(self, recall: float, unit: str = "categories", by: str = "topk") -> Rule:
        """The rule for at least the wanted recall, chosen `by` "topk" or "threshold"."""
        check_recall(recall)
        own = [rule for rule in self.rules if (rule.unit, rule.by) == (unit, by)]
        enough = [rule for rule in own if rule.recall >= recall - 1e-9]
        if not enough:
            known = ", ".join(f"{rule.recall:g}" for rule in own) or "none"
            raise ValueError(
                f"no rule by {by} for a recall of {recall:g} of the {unit} is stored; stored are "
                f"{known}. Run `rankseg-d2 kappa CONFIG --weights FILE --recall {recall:g} --of "
                f"{unit} --write`."
            )
        return min(enough, key=lambda rule: rule.recall)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for a checkpoint."""
        rules = [rule.to_json() for rule in self.rules]
        return {"temperature": self.temperature, "bias": list(self.bias), "rules": rules}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """The calibration that `to_json` has written; ValueError for anything else."""
        try:
            temperature, bias = float(content["temperature"]), tuple(map(float, content["bias"]))
            return cls(temperature, bias, tuple(Rule(**rule) for rule in content["rules"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"this is no calibration of `rankseg-d2 kappa`: {short(content)}"
            ) from error


class Bin(NamedTuple):
    """Pairs of image and category whose probability lies in the same interval."""

    probability: float  # their mean
    present: float  # the share of them that is present
    count: int


@dataclass(frozen=True)
class Reliability:
    """How well probabilities agree with what is present."""

    nll: float  # mean negative log likelihood of a pair of image and category
    ece: float  # expected calibration error: mean |probability - share present| over the bins
    bins: tuple[Bin, ...]  # of equal width, those that are not empty

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bins": [one._asdict() for one in self.bins]}


def reliability(logits: Tensor, present: Tensor, bins: int = BINS) -> Reliability:
    """Of sigmoid(logits) (N, C) against the categories that are present (N, C)."""
    _check(logits, present)
    sums = logits.new_zeros(3, bins, dtype=torch.float64)  # count, probability and present
    nll = 0.0
    parts = (values.split(_IMAGES_AT_ONCE) for values in (logits, present))
    for part, target in zip(*parts, strict=True):
        part, target = part.double(), target.double()
        nll += F.binary_cross_entropy_with_logits(part, target, reduction="sum").item()
        probability = part.sigmoid().flatten()
        index = (probability * bins).long().clamp(max=bins - 1)
        values = torch.stack([torch.ones_like(probability), probability, target.flatten()])
        sums.index_add_(1, index, values)
    counts, *totals = sums[:, sums[0] > 0]
    mean, share = (total / counts for total in totals)
    ece = ((mean - share).abs() * counts).sum() / counts.sum()
    rows = zip(mean.tolist(), share.tolist(), counts.long().tolist(), strict=True)
    return Reliability(nll / logits.numel(), ece.item(), tuple(Bin(*row) for row in rows))


def fit_calibration(
    scores: Tensor, present: Tensor, strength: float = 1.0
) -> tuple[Calibration, Reliability, Reliability]:
    """The calibration of scores (N, C) with the categories present (N, C), before it and after.

    It minimises the negative log likelihood of all pairs of image and category together. Biases
    are pulled towards their mean, and the temperature towards 1, as `strength` says: by a normal
    prior of variance 1 / strength on biases and on the logarithm of the temperature. So a category
    that is in few images, or in none, gets about the bias that the others have.
    """
    _check(scores, present)
    if not 0 < strength < math.inf:
        raise ValueError(f"strength must be a number above 0; got {strength}.")
    scores, target = scores.double(), present.double()
    slope, shared = scores.new_zeros(1), scores.new_zeros(1)  # of log(1 / temperature), of all
    own = scores.new_zeros(scores.shape[1])
    values = [value.requires_grad_() for value in (slope, shared, own)]
    optimizer = torch.optim.LBFGS(
        values, max_iter=_STEPS, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = scores * slope.exp() + shared + own
        fit = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        prior = strength / 2 * (slope.square().sum() + own.square().sum())
        value = (fit + prior) / len(scores)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    temperature = slope.detach().neg().exp().item()
    bias = (shared + own).detach()
    calibration = Calibration(temperature, tuple(bias.tolist()))
    after = reliability(scores / temperature + bias, present)
    return calibration, reliability(scores, present), after


def _check(scores: Tensor, present: Tensor) -> None:
    if scores.dim() != 2 or scores.shape != present.shape or not scores.numel():
        raise ValueError(
            "scores and present must be (images, categories), with an image at least; got "
            f"{tuple(scores.shape)} and {tuple(present.shape)}."
        )
    if not scores.isfinite().all():
        raise ValueError("the scores are not finite; the model that gave them has diverged.")
