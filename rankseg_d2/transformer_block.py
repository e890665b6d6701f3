"""The pre-norm transformer block of ViT, of Segmenter's decoder and of the multi-label head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TOKENS = 1024  # in a part of `feed_forward`


class Block(nn.Module):
    """Self-attention and an MLP, each after a norm and beside a shortcut: (B, N, D) -> (B, N, D).

    `valid` (B, N) bool says which tokens are read by others, or (B, N, N) bool for each token
    which ones it reads; None: all.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float = 0.0,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-5,
        layer_scale: float = 0.0,
        qkv_bias: bool = True,
    ):
        """`layer_scale`: the first value of a factor for each channel of both branches; 0: none."""
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, norm_eps)
        self.attn = SelfAttention(dim, heads, dropout, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, norm_eps)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dropout)
        for name in ("ls1", "ls2"):
            self.add_module(name, LayerScale(dim, layer_scale) if layer_scale else nn.Identity())

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.ls1(self.attn(self.norm1(x), valid)))
        return x + self.drop(self.ls2(self.mlp(self.norm2(x))))

    def drop(self, branch: Tensor) -> Tensor:
        """Drop the branch for a random part of the batch (stochastic depth)."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.drop_path)
        return branch * (kept / (1 - self.drop_path))


class LayerScale(nn.Module):
    """A learnt factor for each channel (Touvron et al., ICCV 2021)."""

    def __init__(self, dim: int, value: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class SelfAttention(nn.Module):
    """Self-attention of tokens (B, N, D), with one linear layer for queries, keys and values."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, qkv_bias: bool = True):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads of attention cannot share {dim} channels")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.read(*self.qkv(x).chunk(3, dim=-1), valid)

    def read(
        self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """What queries (B, L, D) read of the keys and values (B, N, D): (B, L, D)."""
        if valid is not None:
            valid = valid.unsqueeze(1)  # (B, 1, N) or (B, 1, L, N)
            valid = valid.unsqueeze(1) if valid.dim() == 3 else valid  # (B, 1, 1 or L, N)
        read = F.scaled_dot_product_attention(
            self.split(queries),
            self.split(keys),
            self.split(values),
            attn_mask=valid,
            dropout_p=self.dropout if self.training else 0.0,
        )  # (B, M, L, D/M)
        read = self.proj(read.transpose(1, 2).flatten(2))  # (B, L, D)
        return F.dropout(read, self.dropout, self.training)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, M, L, D/M)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(feed_forward(x, self.fc1, F.gelu, self.drop, self.fc2))


def feed_forward(
    x: Tensor,
    first: nn.Module,
    activation: Callable[[Tensor], Tensor],
    dropout: nn.Module,
    second: nn.Module,
) -> Tensor:
    """Two layers with an activation and dropout between them, for each token: (..., D).

    In inference on CPUs some tokens at a time, whose hidden values stay in the cache.
    """

    def run(tokens: Tensor) -> Tensor:
        return second(dropout(activation(first(tokens))))

    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return run(x)
    parts = x.flatten(0, -2).split(_TOKENS)
    return run(x) if len(parts) == 1 else torch.cat(list(map(run, parts))).view(x.shape)
