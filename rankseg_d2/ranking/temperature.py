"""The rank-adaptive temperature, and the cosine classifier that it follows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dtypes import at_least_float
from .ranking import LOW_LOGIT, Ranking, valid_columns


class RankNorm(nn.LayerNorm):
    """LayerNorm over the κ ranks (and no-object): (..., B, N, K or K+1) of the same shape.

    Weight and bias belong to a rank, not to a class. Without invalid ranks it is nn.LayerNorm.
    Invalid ones (dynamic κ, the oracle) would distort mean and deviation with their low logits, so
    they count in neither, and stay low. Logits of fewer ranks take the weights of the first ranks,
    and of no-object: what a model with a smaller κ loads from the same checkpoint.
    """

    def __init__(self, k: int, no_object: bool = True, unbiased: bool = False):
        """`unbiased`: where some ranks are invalid, divide the variance by their number less 1."""
        super().__init__(k + no_object)
        self.no_object = no_object
        self.unbiased = unbiased

    def forward(self, logits: Tensor, ranking: Ranking | None = None) -> Tensor:
        weight, bias = self._of_columns(logits.shape[-1])
        if ranking is None or ranking.valid is None:
            return F.layer_norm(at_least_float(logits), weight.shape, weight, bias, self.eps)
        valid = valid_columns(ranking, logits.shape[-1])  # (B, 1, K or K+1)
        count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
        logits = at_least_float(logits).masked_fill(~valid, 0)
        logits = logits - logits.sum(dim=-1, keepdim=True) / count
        logits = logits.masked_fill(~valid, 0)
        count = (count - int(self.unbiased)).clamp(min=1)
        variance = logits.square().sum(dim=-1, keepdim=True) / count
        logits = logits * (variance + self.eps).rsqrt() * weight + bias
        return logits.masked_fill(~valid, LOW_LOGIT)

    def unranked(self, logits: Tensor) -> Tensor:
        """Logits of all categories (..., C or C+1), before a ranking says which ranks they have.

        Each category gets the mean weight and bias of the ranks, and no-object its own.
        """
        others = int(self.no_object)
        ranks = self.normalized_shape[0] - others
        weight, bias = (
            torch.cat([x[:ranks].mean().expand(logits.shape[-1] - others), x[ranks:]])
            for x in (self.weight, self.bias)
        )
        return F.layer_norm(at_least_float(logits), weight.shape, weight, bias, self.eps)

    def _of_columns(self, count: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first ranks and no-object, `count` in all."""
        total = self.normalized_shape[0]
        if count == total:
            return self.weight, self.bias
        if count > total:
            raise ValueError(
                f"κ {count - self.no_object} is above {total - self.no_object}, the κ that the "
                "rank-adaptive temperature was made for; choose a κ of at most that."
            )
        ranks = count - self.no_object
        columns = [*range(ranks), *range(total - self.no_object, total)]
        return self.weight[columns], self.bias[columns]


def cosine_logits(features: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine of features (B, N, D) and embeddings (C, D) or (B, K, D): (B, N, C or K).

    In float32 or better. A zero row has cosine 0 with all, and the gradient of a plain product.
    """
    with torch.autocast(features.device.type, enabled=False):
        return unit(features) @ unit(embeddings).transpose(-1, -2)


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Rows of length 1; rows shorter than eps stay as they are."""
    x = at_least_float(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > eps, length, 1.0)
