"""EoMT's queries: what joins a ViT's tokens before its last blocks, and is read after them."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import MLP
from .annealing import check_annealing, masked_share


class QueryPredictor(nn.Module):
    """Learnt queries, their classifier, their mask embeddings, and how long each is masked.

    It is the decoder of a model whose decoder layers are the ViT's own blocks.
    """

    @configurable
    def __init__(
        self,
        dim: int,
        *,
        num_classes: int,
        num_queries: int,
        num_blocks: int,
        mask_start: Sequence[int] = (),
        mask_end: Sequence[int] = (),
    ):
        """`mask_start`, `mask_end`: see `masked_share`, one for each block; (): never masked."""
        super().__init__()
        check_annealing(mask_start, mask_end, num_blocks)
        self.num_layers = num_blocks
        self.schedule = list(zip(mask_start, mask_end, strict=True))
        self.query_feat = nn.Embedding(num_queries, dim)
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, dim, dim, 3, F.gelu)
        # The shares change at each iteration, which blocks have masks hardly ever: a compiled
        # network reads the first as a tensor, and is compiled again for the second.
        self.register_buffer("mask_shares", torch.zeros(num_blocks), persistent=False)
        self.is_masked = (False,) * num_blocks

    @classmethod
    def from_config(cls, cfg: CfgNode, dim: int) -> dict[str, Any]:
        options = cfg.MODEL.EOMT
        return {
            "dim": dim,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "num_queries": cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES,
            "num_blocks": options.BLOCKS,
            "mask_start": options.MASK_START,
            "mask_end": options.MASK_END,
        }

    def anneal(self, iteration: int | None) -> None:
        """Mask the queries, in training, as the schedule says for an iteration."""
        if not self.schedule:
            return
        shares = [masked_share(start, end, iteration) for start, end in self.schedule]
        self.is_masked = tuple(share > 0 for share in shares)
        self.mask_shares.copy_(torch.tensor(shares))

    def join(self, tokens: Tensor) -> Tensor:
        """The queries before the tokens: (B, P+N, D) -> (B, Q+P+N, D)."""
        queries = self.query_feat.weight.expand(tokens.shape[0], -1, -1)
        return torch.cat([queries, tokens], dim=1)

    def predict_masks(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """(B, Q, D), (B, D, h, w) -> (B, Q, 1, h, w), an image as a clip of one frame."""
        return torch.einsum("bqd,bdhw->bqhw", self.mask_embed(queries), mask_features)[:, :, None]


@torch.no_grad()
def readable(masks: Tensor, size: tuple[int, int], num_tokens: int, share: Tensor) -> Tensor:
    """Which tokens each token may read: (B, Q, 1, H, W) -> (B, L, L) bool, L = num_tokens.

    The first Q tokens are the queries, and the last ones the patches, of which a query reads those
    within its mask. All other pairs are free, and so are all but a random `share` of the queries.
    """
    small = F.interpolate(masks[:, :, 0], size, mode="bilinear", align_corners=False)
    inside = (small > 0).flatten(2)  # (B, Q, N)
    batch, num_queries, num_patches = inside.shape
    is_free = torch.rand(batch, num_queries, 1, device=masks.device) >= share
    valid = inside.new_ones(batch, num_tokens, num_tokens)
    valid[:, :num_queries, num_tokens - num_patches :] = inside | is_free
    return valid
