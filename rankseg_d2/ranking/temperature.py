"""The rank-adaptive temperature, and the cosine classifier that it follows."""

import torch
from torch import Tensor, nn

from ..dtypes import at_least_float
from .ranking import LOW_LOGIT, Ranking, valid_columns


class RankNorm(nn.LayerNorm):
    """LayerNorm over the κ ranks (and no-object): (..., B, N, K or K+1) of the same shape.

    Weight and bias belong to a rank, not to a class. Without invalid ranks it is nn.LayerNorm.
    Invalid ones (dynamic κ, the oracle) would distort mean and deviation with their low logits, so
    they count in neither, and stay low.
    """

    def __init__(self, k: int, no_object: bool = True):
        super().__init__(k + no_object)

    def forward(self, logits: Tensor, ranking: Ranking | None = None) -> Tensor:
        if ranking is None or ranking.valid is None:
            return super().forward(at_least_float(logits))
        valid = valid_columns(ranking, logits.shape[-1])  # (B, 1, K or K+1)
        count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
        logits = at_least_float(logits).masked_fill(~valid, 0)
        logits = logits - logits.sum(dim=-1, keepdim=True) / count
        logits = logits.masked_fill(~valid, 0)
        variance = logits.square().sum(dim=-1, keepdim=True) / count
        logits = logits * (variance + self.eps).rsqrt() * self.weight + self.bias
        return logits.masked_fill(~valid, LOW_LOGIT)


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
