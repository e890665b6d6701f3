"""The ranking of an image's categories, and everything that is done with it.

B images, Q queries, C categories, K ranked categories (κ). Category id C and rank K both mean
"no object", which is always the last column.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOW_LOGIT = -1e4  # of an invalid rank: its softmax is 0, and fp16 can hold it


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best K of C categories for each of B images."""

    scores: Tensor  # (B, C) score of every category
    index: Tensor  # (B, K) category ids in rank order, best first
    valid: Tensor | None = None  # (B, K) bool, False: the rank holds no category. None: all do

    @property
    def K(self) -> int:
        return self.index.shape[1]

    @property
    def C(self) -> int:
        return self.scores.shape[1]

    def image(self, i: int) -> "Ranking":
        """The ranking of image i alone, as a batch of one."""
        one = slice(i, i + 1)
        valid = None if self.valid is None else self.valid[one]
        return Ranking(self.scores[one], self.index[one], valid)


def check_topk(k: int, num_classes: int) -> None:
    """Raise ValueError unless 1 <= κ <= C."""
    if not 1 <= k <= num_classes:
        raise ValueError(f"k must be in [1, {num_classes}], the number of categories; got {k}.")


def rank(
    scores: Tensor, k: int, threshold: float | None = None, keep: Tensor | None = None
) -> Ranking:
    """The κ categories with the highest scores (B, C), ties by lower id.

    With a threshold (in the unit of the scores) κ is dynamic: only categories above it are valid,
    and always the best one. Categories to `keep`, (B, C) bool, are among the κ and valid whatever
    their scores (the best κ of them, if they are more); the scores still decide their ranks.
    """
    check_topk(k, scores.shape[1])
    values = scores.detach()
    index = values.sort(dim=1, descending=True, stable=True).indices  # (B, C)
    if keep is not None:
        kept_first = keep.gather(1, index).byte().sort(dim=1, descending=True, stable=True).indices
        index = index.gather(1, kept_first[:, :k].sort(dim=1).values)  # by score again
    index = index[:, :k]  # (B, K)
    if threshold is None:
        return Ranking(scores, index)
    valid = values.gather(1, index) > threshold
    valid = valid | (torch.arange(k, device=scores.device) == 0)
    return Ranking(scores, index, valid if keep is None else valid | keep.gather(1, index))


def rank_from_labels(present: Tensor, k: int) -> Ranking:
    """The ground-truth oracle: a ranking from the categories that are present (B, C).

    Present categories come first, in id order (the first κ, if more are present). Absent ones have
    the remaining ranks, in id order too, but those ranks are invalid: nothing can be assigned to
    them. An image without objects has no valid rank.
    """
    ranking = rank(present.float(), k)
    return Ranking(ranking.scores, ranking.index, present.bool().gather(1, ranking.index))


def keep_valid(logits: Tensor, ranking: Ranking, fill: float = LOW_LOGIT) -> Tensor:
    """Fill the columns of invalid ranks: logits (..., B, Q, K or K+1) of the same shape."""
    if ranking.valid is None:
        return logits
    return logits.masked_fill(~valid_columns(ranking, logits.shape[-1]), fill)


def valid_columns(ranking: Ranking, num_columns: int) -> Tensor:
    """Which columns hold a category or no-object: (B, 1, K or K+1) bool."""
    B, K = ranking.index.shape
    assert num_columns in (K, K + 1), (num_columns, K)
    valid = ranking.index.new_ones(B, num_columns, dtype=torch.bool)
    if ranking.valid is not None:
        valid[:, :K] = ranking.valid
    return valid.unsqueeze(1)


def restrict(logits: Tensor, ranking: Ranking) -> Tensor:
    """Keep the ranked classes and no-object: (..., B, Q, C+1) -> (..., B, Q, K+1).

    Column r belongs to the category of rank r. Invalid ranks get LOW_LOGIT.
    """
    B, C = ranking.scores.shape
    assert logits.shape[-1] == C + 1 and logits.shape[-3] == B, (logits.shape, B, C)
    columns = torch.cat([ranking.index, ranking.index.new_full((B, 1), C)], dim=1)  # (B, K+1)
    columns = columns.unsqueeze(1).expand(*logits.shape[:-1], -1)  # (..., B, Q, K+1)
    return keep_valid(logits.gather(-1, columns), ranking)


def restrict_embeddings(weight: Tensor, ranking: Ranking) -> Tensor:
    """Class embeddings of the ranked categories: (C, D) -> (B, K, D); (C+1, D) -> (B, K+1, D).

    So a classifier multiplies κ embeddings instead of C. A last row C of the weight is no-object,
    and stays last. A weight (B or 1, C, D) has embeddings for each image. Fill invalid ranks of the
    resulting logits with `keep_valid`.
    """
    B, C = ranking.scores.shape
    assert weight.shape[-2] in (C, C + 1), (weight.shape, C)
    rows = ranking.index
    if weight.shape[-2] == C + 1:
        rows = torch.cat([rows, rows.new_full((B, 1), C)], dim=1)  # (B, K+1)
    if weight.dim() == 2:
        return F.embedding(rows, weight)  # weight[rows] has gradients that vary from run to run
    weight, rows = weight.expand(B, -1, -1), rows[..., None].expand(-1, -1, weight.shape[-1])
    return weight.gather(1, rows)


def relabel(labels: Tensor, index: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Ranks of one image's labels, and which of them are ranked: (N,), (K,) -> (N,), (N,) bool.

    `index` and `valid` are one row of the ranking's. A label outside the top κ gets rank K; region
    models drop its target.
    """
    found = labels.long().unsqueeze(1) == index  # (N, K)
    if valid is not None:
        found = found & valid
    keep = found.any(dim=1)
    ranks = (found * torch.arange(index.shape[0], device=index.device)).sum(dim=1)
    return ranks.where(keep, index.shape[0]), keep


def relabel_map(labels: Tensor, ranking: Ranking, ignore_index: int = 255) -> Tensor:
    """Label maps of category ids (B, ...), any integer type, as maps of ranks (B, ...), int64.

    Categories outside the top κ and labels that are no category (255, 65535, -1) get ignore_index.
    """
    B, C = ranking.scores.shape
    if 0 <= ignore_index < C:
        raise ValueError(
            f"ignore_index {ignore_index} is one of the {C} categories; choose a value of at "
            f"least {C}, such as 65535."
        )
    ranks = torch.arange(ranking.K, device=ranking.index.device).expand(B, -1)
    if ranking.valid is not None:
        ranks = ranks.where(ranking.valid, ignore_index)
    table = ranking.index.new_full((B, C + 1), ignore_index).scatter(1, ranking.index, ranks)
    labels = labels.long()
    labels = labels.where((labels >= 0) & (labels < C), C)
    return table.gather(1, labels.flatten(1)).view_as(labels)


def restore(ranks: Tensor, ranking: Ranking) -> Tensor:
    """Category ids of ranks in 0…K: (B, ...) -> (B, ...); rank K (no object) becomes id C."""
    B, C = ranking.scores.shape
    ids = torch.cat([ranking.index, ranking.index.new_full((B, 1), C)], dim=1)  # (B, K+1)
    return ids.gather(1, ranks.flatten(1)).view_as(ranks)


def spread(maps: Tensor, ranking: Ranking, fill: float = 0.0) -> Tensor:
    """Maps by rank (B, K, ...) as maps by category (B, C, ...), `fill` for all others."""
    B, K = ranking.index.shape
    assert maps.shape[:2] == (B, K), (maps.shape, B, K)
    if ranking.valid is not None:
        valid = ranking.valid.reshape(B, K, *[1] * (maps.dim() - 2))
        maps = maps.masked_fill(~valid, fill)
    full = maps.new_full((B, ranking.C, *maps.shape[2:]), fill)
    image = torch.arange(B, device=maps.device).unsqueeze(1)
    full[image, ranking.index] = maps
    return full
