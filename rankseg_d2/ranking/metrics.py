"""Multi-label metrics, per image or per category, from (B, C) tensors without a loop.

An image without any category present has no recall and no average precision: both are NaN, so that
`nanmean` leaves it out (the reference counts its recall as 1). Its precision is 0, since all that
is kept is wrong. A category that is in no image has no average precision either.
"""

import torch
from torch import Tensor

from .ranking import Ranking


def recall_at_k(ranking: Ranking, present: Tensor) -> Tensor:
    """Share of the present categories (B, C) that are kept: (B,), NaN where none is present."""
    return _kept_and_present(ranking, present).sum(dim=1) / present.bool().sum(dim=1)


def precision_at_k(ranking: Ranking, present: Tensor) -> Tensor:
    """Share of the kept categories that are present (B, C): (B,), NaN where none is kept."""
    kept = ranking.K if ranking.valid is None else ranking.valid.sum(dim=1)
    return _kept_and_present(ranking, present).sum(dim=1) / kept


def label_ranking_ap(scores: Tensor, present: Tensor) -> Tensor:
    """Label-ranking average precision of each image: (B, C), (B, C) -> (B,).

    The mean, over the present categories, of the share of present ones at their rank or above it.
    """
    relevant = in_order(scores, present)
    count = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    precision = relevant.cumsum(dim=1) / count
    return (precision * relevant).sum(dim=1) / relevant.sum(dim=1)


def class_ap(scores: Tensor, present: Tensor) -> Tensor:
    """Average precision of each category over the images: (B, C), (B, C) -> (C,). Mean: mAP."""
    return label_ranking_ap(scores.t(), present.t())


def rank_histogram(scores: Tensor, present: Tensor) -> Tensor:
    """How many present categories have rank 0, 1, …: (B, C), (B, C) -> (C,) int64.

    Its cumulative sum over its sum is the recall at every κ, over all images together.
    """
    return in_order(scores, present).sum(dim=0)


def _kept_and_present(ranking: Ranking, present: Tensor) -> Tensor:
    hits = present.bool().gather(1, ranking.index)  # (B, K)
    return hits if ranking.valid is None else hits & ranking.valid


def in_order(scores: Tensor, present: Tensor) -> Tensor:
    """Each row of `present` (B, C) in the order of falling scores, ties by lower id, as bool."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    return present.bool().gather(1, order)
