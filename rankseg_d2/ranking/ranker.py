"""The options of a ranking: how many categories are kept, which, and how the ranking is learnt.

A `Ranker` holds options only. The model that it belongs to holds the modules with parameters:
the multi-label head and the rank-adaptive temperature.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dtypes import at_least_float
from .kept_set import Schedule, check_schedule, topk_at, with_absent
from .losses import asymmetric_loss
from .ranking import Ranking, check_topk, keep_valid, rank, rank_from_labels, restrict_embeddings
from .temperature import RankNorm, cosine_logits

# (B, N, D), (B, K, D), (B, K) bool or None -> (B, N, D'), (B, K, D')
Refine = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ranker:
    """Keeps the `topk` (κ) best of all categories."""

    topk: int
    threshold: float | None = None  # a probability: keep only categories above it, at most κ
    keep_true: bool = False  # training keeps an image's own categories, whatever their scores
    random_share: float = 0.0  # of the places that they leave: random categories, not the best ones
    schedule: Schedule = ()  # κ of the training by iterations; (): topk
    oracle: bool = False  # scores are 1 for categories that are present, and 0 for others
    loss: Callable[[Tensor, Tensor], Tensor] = asymmetric_loss
    loss_weight: float = 10.0
    cosine: bool = True  # classify by cosine of features and class embeddings, without bias
    gate: float = 0.0  # so many times the log probability of a category is added to its class logit
    # What a user of predictions asks for; both act before the best κ are taken.
    excluded: Tensor | None = field(default=None, compare=False)  # (C,) bool: never kept
    prior: Tensor | None = field(default=None, compare=False)  # (C,) added to the logits

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"topk must be at least 1; got {self.topk}.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(
                f"threshold must be a probability between 0 and 1, or None to keep all topk "
                f"categories; got {self.threshold}."
            )
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share must be in [0, 1]; got {self.random_share}.")
        if self.random_share and not self.keep_true:
            raise ValueError("random_share needs keep_true: it fills what true categories leave.")
        check_schedule(self.schedule)

    @property
    def largest_topk(self) -> int:
        """The largest κ of training and inference, for which a RankNorm is made."""
        return max([self.topk, *(k for _, k in self.schedule)])

    def rank(self, scores: Tensor, keep: Tensor | None = None) -> Ranking:
        """The ranking by scores (B, C): logits or, for the oracle, which categories are present.

        `keep` (B, C) bool: categories that are kept whatever their scores.
        """
        check_topk(self.topk, scores.shape[1])
        if self.prior is not None and not self.oracle:
            scores = scores + self.prior.to(scores)
        if self.excluded is None:
            return self._rank(scores, keep)
        excluded = self.excluded.to(scores.device)
        low = 0 if self.oracle else -torch.inf
        ranking = self._rank(scores.masked_fill(excluded, low), keep)
        valid = ~excluded[ranking.index]  # (B, K): also of ranks for which no category is left
        if ranking.valid is not None:
            valid = valid & ranking.valid
        return replace(ranking, scores=scores, valid=valid)

    def _rank(self, scores: Tensor, keep: Tensor | None) -> Ranking:
        if self.oracle:
            return rank_from_labels(scores, self.topk)
        if self.threshold is None:
            return rank(scores, self.topk, keep=keep)
        ranking = rank(scores.sigmoid(), self.topk, self.threshold, keep)
        return replace(ranking, scores=scores)

    def rank_in_training(
        self, scores: Tensor, present: Tensor, iteration: int | None = None
    ) -> Ranking:
        """The ranking that a training step uses: the one place where it is decided what is learnt.

        `present` (B, C) are the image's categories. Without an `iteration` the schedule is at its
        end.
        """
        k = topk_at(self.schedule, iteration) if self.schedule else self.topk
        keep = present.bool() if self.keep_true and not self.oracle else None
        if keep is not None and self.random_share:
            keep = with_absent(scores, keep, k, self.random_share)
        return replace(self, topk=k).rank(scores, keep)

    def multi_label_loss(self, scores: Tensor, present: Tensor) -> Tensor:
        """The weighted loss of scores (B, C) against the categories that are present (B, C)."""
        return self.loss_weight * self.loss(scores, present)

    def classify(
        self,
        features: Tensor,
        embeddings: Tensor,
        bias: Tensor | None,
        ranking: Ranking,
        norm: RankNorm | None,
        refine: Refine | None = None,
    ) -> Tensor:
        """Logits of the ranked categories: (..., B, N, D) -> (..., B, N, K or K+1).

        Args:
            embeddings: (C, D), or (C+1, D) with no-object last; or (B, C, D), one set per image.
            bias: of the embeddings (C or C+1,); not used with the cosine.
            norm: the rank-adaptive temperature.
            refine: features, chosen embeddings and which of their ranks are valid -> both, as they
                are compared.
        """
        chosen = restrict_embeddings(embeddings, ranking)  # (B, K or K+1, D)
        if refine is not None:
            features, chosen = refine(features, chosen, ranking.valid)
        if bias is not None and not self.cosine:
            bias = restrict_embeddings(bias[:, None], ranking).mT  # (B, 1, K or K+1)
        logits = self.compare(features, chosen, bias)
        logits = keep_valid(logits, ranking) if norm is None else norm(logits, ranking)
        return self._gated(logits, ranking)

    def compare(self, features: Tensor, embeddings: Tensor, bias: Tensor | None) -> Tensor:
        """Logits before the temperature: (..., N, D), (..., K, D) -> (..., N, K)."""
        if self.cosine:
            return cosine_logits(features, embeddings)
        logits = features @ embeddings.mT
        return logits if bias is None else logits + bias

    def _gated(self, logits: Tensor, ranking: Ranking) -> Tensor:
        """Logits (..., B, N, K or K+1) with the log probability that each category is present.

        No-object has no gate, and the oracle has no probabilities.
        """
        if not self.gate or self.oracle:
            return logits
        scores = at_least_float(ranking.scores.detach().gather(1, ranking.index))
        gate = F.pad(F.logsigmoid(scores), (0, logits.shape[-1] - ranking.K))  # (B, K or K+1)
        return logits + self.gate * gate.unsqueeze(1)
