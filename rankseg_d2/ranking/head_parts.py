"""The modules that multi-label heads are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dtypes import at_least_float
from ..transformer_block import Block, feed_forward


def attention_heads(dim: int) -> int:
    """Heads of attention for this width, one per 64 channels; ValueError if they do not fit."""
    heads = max(1, dim // 64)
    if dim < 1 or dim % heads:
        raise ValueError(
            f"hidden_dim must be a multiple of its {heads} attention heads (one per 64 "
            f"channels), such as {heads * 64}; got {dim}."
        )
    return heads


class ClassLinear(nn.Module):
    """One linear classifier per category: tokens (B, C, D) -> logits (B, C), float32 or better."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        bound = dim**-0.5
        self.W = nn.Parameter(torch.empty(1, num_classes, dim).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(1, num_classes).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        # a product and a sum, not einsum: autocast would make that a half-precision matmul
        return (at_least_float(tokens) * self.W).sum(dim=-1) + self.b


class GroupLinear(nn.Module):
    """One linear classifier per category, of its group's token: (B, G, D) -> (B, C) logits.

    Float32 or better. A group has ceil(C / G) categories or one less, next to each other. Which
    group a category has is saved with its weights, so that a checkpoint for other classes,
    whose rows are matched by name, brings each row to the token that it was trained with.
    """

    def __init__(self, groups: int, num_classes: int, dim: int):
        super().__init__()
        self.groups = groups
        bound = dim**-0.5
        self.W = nn.Parameter(torch.empty(1, num_classes, dim).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(1, num_classes).uniform_(-bound, bound))
        # on the CPU even where weights are only planned (torch.device("meta")), to be read below
        group = torch.arange(num_classes, device="cpu") * groups // num_classes
        self.register_buffer("group", group)
        self.register_load_state_dict_post_hook(_arrange_again)
        self.arrange()

    def arrange(self) -> None:
        """Make the tables by which `forward` multiplies all groups at once, from `group`."""
        group = self.group % self.groups  # a file may have had more groups
        sizes = group.bincount(minlength=self.groups)
        order = group.argsort(stable=True)
        starts = sizes.cumsum(0) - sizes
        place = torch.empty_like(group)
        place[order] = torch.arange(len(group), device=group.device) - starts[group[order]]
        size = int(sizes.max())
        # rows (G, P): the categories of each group; what is left over has any category
        rows = group.new_zeros(self.groups, size)
        rows[group, place] = torch.arange(len(group), device=group.device)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("places", group * size + place, persistent=False)  # (C,) in G * P

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, enabled=False):  # for the product
            weight = F.embedding(self.rows, self.W[0])  # (G, P, D)
            logits = at_least_float(tokens).transpose(0, 1) @ weight.mT  # (G, B, P)
            return logits.transpose(0, 1).flatten(1)[:, self.places] + self.b  # (B, C)


def _arrange_again(linear: GroupLinear, _: object) -> None:
    linear.arrange()


class DecoderLayers(nn.ModuleList):
    """Two pre-norm decoder layers: tokens (1 or B, C, D) read features (B, N, D) -> (B, C, D)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__(
            nn.TransformerDecoderLayer(
                dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        tokens = tokens.expand(features.shape[0], -1, -1)  # (B, C, D)
        for layer in self:
            tokens = layer(tokens, features)
        return tokens


class CrossAttentionLayer(nn.Module):
    """A post-norm decoder layer without self-attention; `queries` and `keys` are added."""

    heads = 8

    def __init__(self, dim: int, dropout: float, hidden_dim: int = 2048):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, self.heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor, features: Tensor, keys: Tensor) -> Tensor:
        read, _ = self.multihead_attn(
            x + queries, features + keys, features, need_weights=False
        )
        x = self.norm2(x + self.dropout(read))
        y = feed_forward(x, self.linear1, F.relu, self.dropout, self.linear2)
        return self.norm3(x + self.dropout(y))


class SeparableProjection(nn.Module):
    """Two 1 x 1 convolutions of features (B, N, D_in), one for each channel and one over them."""

    def __init__(self, in_dim: int, dim: int):
        super().__init__()
        self.depthwise = nn.Conv1d(in_dim, in_dim, 1, groups=in_dim)
        self.pointwise = nn.Linear(in_dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        features = F.relu(self.depthwise(features.mT)).mT  # (B, N, D_in)
        return F.relu(self.pointwise(features))


class ClassBlock(Block):
    """A transformer encoder block over features and class tokens."""

    def tokens(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Class tokens (B or 1, C, D) that have read the features (B, N, D): (B, C, D).

        They are those of the block over both, but only they have queries and a feed-forward; the
        features give keys and values.
        """
        D, attention = features.shape[2], self.attn
        # tokens (1, C, D) are the same for all images: so are their queries, keys and values
        own = attention.qkv(self.norm1(tokens)).expand(features.shape[0], -1, -1)  # (B, C, 3D)
        queries, token_kv = own.split([D, 2 * D], dim=-1)
        weight, bias = attention.qkv.weight[D:], attention.qkv.bias[D:]
        feature_kv = F.linear(self.norm1(features), weight, bias)  # (B, N, 2D)
        keys, values = torch.cat([feature_kv, token_kv], dim=1).chunk(2, dim=-1)  # (B, N+C, D)
        tokens = tokens + attention.read(queries, keys, values)  # (B, C, D)
        return tokens + self.mlp(self.norm2(tokens))
