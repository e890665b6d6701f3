"""Maps and where their cells are in the image."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cell_centers(size: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """x and y in the image of the cells of a map (h, w), row by row: (h·w, 2)."""
    y, x = (torch.arange(side, device=device) * stride + stride // 2 for side in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1).float()


def aligned_upsample(maps: Tensor, factor: int) -> Tensor:
    """Maps (N, C, h, w) enlarged bilinearly by a whole factor: (N, C, h·factor, w·factor).

    The value of a cell moves to where `cell_centers` says that it is; before the first and behind
    the last cell values go on as they are.
    """
    if factor == 1:
        return maps
    height, width = (factor * side for side in maps.shape[-2:])
    maps = F.pad(maps, (0, 1, 0, 1), mode="replicate")
    maps = F.interpolate(maps, (height + 1, width + 1), mode="bilinear", align_corners=True)
    before = factor // 2
    maps = F.pad(maps, (before, 0, before, 0), mode="replicate")
    return maps[..., :height, :width]


def fit(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w), cut or padded with zeros at the right and the bottom: (..., H, W)."""
    height, width = maps.shape[-2:]
    maps = maps[..., : size[0], : size[1]]
    return F.pad(maps, (0, max(0, size[1] - width), 0, max(0, size[0] - height)))
