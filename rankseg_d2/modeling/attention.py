"""Attention and feed-forward blocks that the decoders and encoders share.

Everything is batch first. Position terms are added to queries and keys, never to values.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..transformer_block import feed_forward


class MultiheadAttention(nn.MultiheadAttention):
    """PyTorch's parameters; the mask is shared by all heads instead of being repeated for each."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__(dim, num_heads, dropout=dropout)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
    ) -> Tensor:
        """(B, Q, D), (B, N, D), (B, N, D) -> (B, Q, D); `blocked` (B, Q, N): True is masked."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        query, key, value = (
            # (B, N, D) -> (B, heads, N, D / heads)
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if blocked is None else ~blocked[:, None]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """Base of layers that compute x + dropout(f(x)).

    A norm comes before f in the pre-norm form, else after the sum: `before` and `after` say where.
    """

    def __init__(self, dropout: float, pre_norm: bool):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)


class SelfAttentionLayer(Residual):
    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, pre_norm: bool = False):
        super().__init__(dropout, pre_norm)
        self.norm = nn.LayerNorm(dim)
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        xavier_init_(self)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        y = self.before(self.norm, x)
        y = self.self_attn(y + position, y + position, y)
        return self.after(self.norm, x + self.dropout(y))


class CrossAttentionLayer(Residual):
    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, pre_norm: bool = False):
        super().__init__(dropout, pre_norm)
        self.norm = nn.LayerNorm(dim)
        self.multihead_attn = MultiheadAttention(dim, num_heads, dropout)
        xavier_init_(self)

    def forward(
        self, x: Tensor, memory: Tensor, key: Tensor, position: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """Queries `x` (B, Q, D) attend to `memory` (B, N, D); `key` is memory plus position."""
        y = self.before(self.norm, x)
        y = self.multihead_attn(y + position, key, memory, blocked)
        return self.after(self.norm, x + self.dropout(y))


class FFNLayer(Residual):
    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0, pre_norm: bool = False):
        super().__init__(dropout, pre_norm)
        self.norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        xavier_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(self.norm, x)
        y = feed_forward(y, self.linear1, F.relu, self.dropout, self.linear2)
        return self.after(self.norm, x + self.dropout(y))


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        num_layers: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        self.activation = activation
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def relative_bias(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table of relative positions, for each head: (R, M), (N, N) -> (M, N, N).

    Not table[index]: on CPUs its gradient is slower, and varies from run to run.
    """
    return table.index_select(0, index.flatten()).unflatten(0, index.shape).permute(2, 0, 1)


@torch.no_grad()
def xavier_init_(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
