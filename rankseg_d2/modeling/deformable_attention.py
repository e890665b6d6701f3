"""Deformable attention (Zhu et al., ICLR 2021) with its linear layers."""

import math

import torch
from torch import Tensor, nn

from ..ops import ms_deform_attn

ScaleSizes = tuple[tuple[int, int], ...]  # (h, w) of each scale


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention: each query reads a few learnt points on every scale."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_scales: int,
        num_points: int,
        value_dim: int | None = None,
    ):
        """`value_dim`: the channels that are read, of all heads together; None: `dim`."""
        super().__init__()
        value_dim = value_dim or dim
        if value_dim % num_heads:
            raise ValueError(
                f"{num_heads} heads of deformable attention cannot share {value_dim} channels"
            )
        self.shape = (num_heads, num_scales, num_points)
        self.sampling_offsets = nn.Linear(dim, 2 * math.prod(self.shape))
        self.attention_weights = nn.Linear(dim, math.prod(self.shape))
        self.value_proj = nn.Linear(dim, value_dim)
        self.output_proj = nn.Linear(value_dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform attention to points on rays around the query, one direction per head."""
        num_heads, num_scales, num_points = self.shape
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        angle = torch.arange(num_heads) * (2 * math.pi / num_heads)
        rays = torch.stack([angle.cos(), angle.sin()], -1)  # (M, 2)
        rays = rays / rays.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, num_points + 1)
        offsets = rays[:, None, None] * steps[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, num_scales, -1, -1).flatten())

    def forward(self, query: Tensor, tokens: Tensor, centers: Tensor, sizes: ScaleSizes) -> Tensor:
        """(N, Q, D) queries at `centers` (Q, 2) read `tokens` (N, S, D) -> (N, Q, D)."""
        num_heads, num_scales, _ = self.shape
        value = self.value_proj(tokens).unflatten(-1, (num_heads, -1))  # (N, S, M, d)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.shape, 2))  # (N, Q, M, L, P, 2)
        logits = self.attention_weights(query).unflatten(-1, self.shape)  # (N, Q, M, L, P)
        references = centers[:, None].expand(query.shape[0], -1, num_scales, -1)  # (N, Q, L, 2)
        attended = ms_deform_attn.ms_deform_attn_fused(value, sizes, references, offsets, logits)
        return self.output_proj(attended)


def cell_centers(height: int, width: int, device: torch.device) -> Tensor:
    """The centres of a map's cells as (x, y) in [0, 1], row by row: (h·w, 2)."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)
