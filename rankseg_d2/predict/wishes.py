"""What a user allows, denies or expects, and how it reaches the ranking of a model."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import short
from ..modeling.meta_arch import Segmentation
from ..ranking import Calibration
from .classes import Classes


@dataclass(frozen=True)
class Wishes:
    """They act before the best κ categories are taken, so that freed ranks go to the next ones.

    On a model that does not rank, excluded classes leave the class logits before the softmax.
    """

    excluded: frozenset[int] = frozenset()
    prior: Tensor | None = None  # (C,) added to the logits of the ranking
    topk: int | None = None  # None for models that do not rank
    threshold: float | None = None  # None: all `topk` are kept

    @classmethod
    def of(
        cls,
        model: Segmentation,
        classes: Classes,
        calibration: Calibration | None,
        *,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        prior: Mapping[str, float] | None = None,
        topk: int | None = None,
        threshold: float | None = None,
        recall: float | None = None,
    ) -> "Wishes":
        """Checked; errors name the argument, and the nearest names for a class."""
        excluded = set(classes.numbers(deny, "deny"))
        if allow is not None:
            excluded |= set(range(len(classes))) - set(classes.numbers(allow, "allow"))
        if len(excluded) == len(classes):
            raise ValueError("all classes are denied or not allowed; leave one at least")
        prior = prior or None
        only_ranking = {"prior": prior, "topk": topk, "threshold": threshold, "recall": recall}
        given = [name for name, value in only_ranking.items() if value is not None]
        if given and not model.ranks:
            raise ValueError(
                f"{given[0]} needs a model that ranks the categories (MODEL.RANKSEG.FLAG True), "
                f"which this {type(model).__name__} does not; allow and deny work with any model"
            )
        if not model.ranks:
            return cls(frozenset(excluded))
        if recall is not None:
            topk, threshold = _by_recall(recall, topk, threshold, calibration)
        else:
            topk = model.ranker.topk if topk is None else topk
            threshold = model.ranker.threshold if threshold is None else threshold
        _check_topk(topk, model)
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must be a probability between 0 and 1; got {threshold}")
        return cls(frozenset(excluded), _prior(prior, classes), topk, threshold)

    @contextlib.contextmanager
    def on(self, model: Segmentation) -> Iterator[None]:
        """The model ranks by these wishes within `with`."""
        ranker, options = model.ranker, model.result_options
        try:
            if model.ranks:
                model.ranker = self._ranker(ranker, model)
            else:
                model.result_options = replace(options, excluded=self.excluded)
            yield
        finally:
            model.ranker, model.result_options = ranker, options

    def _ranker(self, ranker: Any, model: Segmentation) -> Any:
        changes = {"prior": self.prior, "topk": self.topk, "threshold": self.threshold}
        if self.excluded:
            mask = torch.zeros(model.num_classes, dtype=torch.bool)
            mask[sorted(self.excluded)] = True
            changes["excluded"] = mask
        return replace(ranker, **changes)


def _prior(prior: Mapping[str, float] | None, classes: Classes) -> Tensor | None:
    """Factors of the odds as what is added to the logits: (C,)."""
    if not prior:
        return None
    added = torch.zeros(len(classes))
    for name, factor in prior.items():
        if not isinstance(factor, int | float) or not 0 < factor < math.inf:
            raise ValueError(
                f"prior: the factor of {name} must be a number above 0, not {short(factor)}; to "
                "leave a class out, use deny"
            )
        added[classes.numbers([name], "prior")] = math.log(factor)
    return added


def _check_topk(topk: int, model: Segmentation) -> None:
    trained = model.ranker.topk
    if not isinstance(topk, int) or not 1 <= topk <= trained:
        raise ValueError(
            f"topk must be in [1, {trained}], up to the κ that the model was trained with; got "
            f"{short(topk)}"
        )


def _by_recall(recall, topk, threshold, calibration) -> tuple[int, float | None]:
    """The κ and threshold that `rankseg-d2 kappa --write` has stored for a recall.

    The threshold of the config does not act: the rule holds for what it says alone.
    """
    if topk is not None or threshold is not None:
        raise ValueError("give recall, or topk and threshold, not both")
    if calibration is None:
        raise ValueError(
            "recall needs a model that `rankseg-d2 kappa CONFIG --weights FILE --write` has "
            "measured; without that, use topk or threshold"
        )
    rule = calibration.rule(recall)
    return rule.topk, rule.threshold or None
