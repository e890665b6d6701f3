"""The definition of multi-scale deformable attention, in plain PyTorch, for every device."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Inputs(NamedTuple):
    value: Tensor  # (B, S, M, D)
    spatial_shapes: tuple[tuple[int, int], ...]  # L times (h, w)
    sampling_locations: Tensor  # (B, Q, M, L, P, 2)
    attention_weights: Tensor  # (B, Q, M, L, P)


class FusedInputs(NamedTuple):
    value: Tensor  # (B, S, M, D)
    spatial_shapes: tuple[tuple[int, int], ...]  # L times (h, w)
    reference_points: Tensor  # (B, Q, L, 2)
    offsets: Tensor  # (B, Q, M, L, P, 2), in pixels of their level
    logits: Tensor  # (B, Q, M, L, P)

    def unfused(self) -> Inputs:
        """Locations from reference points and offsets, softmax over levels and points together."""
        value, shapes, references, offsets, logits = self
        dtype = torch.promote_types(value.dtype, torch.float32)
        sizes = torch.tensor([(w, h) for h, w in shapes], dtype=dtype, device=value.device)
        references = references.to(dtype)[:, :, None, :, None]  # (B, Q, 1, L, 1, 2)
        locations = references + offsets.to(dtype) / sizes.view(-1, 1, 2)
        weights = logits.to(dtype).flatten(-2).softmax(-1).view(logits.shape)
        return Inputs(value, shapes, locations, weights)


class Reference:
    """Bilinear samples of each level, weighted and summed: half types are summed in float32."""

    name = "reference"

    def why_not(self, inputs: Inputs | FusedInputs | None) -> str | None:
        return None

    def run(self, inputs: Inputs | FusedInputs) -> Tensor:
        """sum over l, p of weight[q, m, l, p] * value[l, location[q, m, l, p], m]: (B, Q, M*D)."""
        if isinstance(inputs, FusedInputs):
            inputs = inputs.unfused()
        value, shapes, locations, weights = inputs
        dtype = torch.promote_types(value.dtype, torch.float32)
        batch, _, heads, channels = value.shape
        queries = locations.shape[1]
        grids = 2 * locations.to(dtype) - 1  # grid_sample counts from -1 to 1
        weights = weights.to(dtype)

        total = value.new_zeros(batch * heads, channels, queries, dtype=dtype)
        levels = value.split([h * w for h, w in shapes], dim=1)
        for i, (level, (h, w)) in enumerate(zip(levels, shapes, strict=True)):
            maps = level.to(dtype).permute(0, 2, 3, 1)  # (B, M, D, h*w)
            maps = maps.reshape(batch * heads, channels, h, w)
            grid = grids[:, :, :, i].transpose(1, 2).flatten(0, 1)  # (B*M, Q, P, 2)
            weight = weights[:, :, :, i].transpose(1, 2).flatten(0, 1)  # (B*M, Q, P)
            samples = F.grid_sample(maps, grid, align_corners=False)  # (B*M, D, Q, P)
            total = total + (samples * weight[:, None]).sum(-1)  # (B*M, D, Q)

        total = total.reshape(batch, heads * channels, queries)
        return total.transpose(1, 2).contiguous().to(value.dtype)  # (B, Q, M*D)
