"""Positions in maps: sine encodings, and learnt embeddings and biases for other sizes."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_TEMPERATURE = 10000
_EPSILON = 1e-6


def sine_encoding_2d(
    size: tuple[int, int],
    num_feats: int = 128,
    normalize: bool = True,
    device: torch.device | str | None = None,
    padding: Tensor | None = None,
) -> Tensor:
    """Encoding of (y, x): (1, 2*num_feats, h, w), y in the first half of the channels.

    With `padding` (B, h, w), True where a map is padded, positions count the real cells only and
    the result is (B, 2*num_feats, h, w).
    """
    if padding is None:
        padding = torch.zeros(1, *size, dtype=torch.bool, device=device)
    real = (~padding).float()
    y, x = (_waves(_positions(real, axis, normalize), num_feats) for axis in (1, 2))
    return torch.cat([y, x], dim=-1).permute(0, 3, 1, 2)  # (B, h, w, 2F) -> (B, 2F, h, w)


def sine_encoding_3d(
    size: tuple[int, int, int],
    num_feats: int = 128,
    normalize: bool = True,
    device: torch.device | str | None = None,
) -> Tensor:
    """Encoding of (y, x) plus that of time, over all channels: (1, T, 2*num_feats, h, w)."""
    frames, h, w = size
    plane = sine_encoding_2d((h, w), num_feats, normalize, device)  # (1, 2F, h, w)
    time = _positions(torch.ones(frames, device=device), 0, normalize)  # (T,)
    return plane[:, None] + _waves(time, 2 * num_feats)[None, :, :, None, None]


def sine_position(
    size: tuple[int, int, int], dim: int, device: torch.device | str | None = None
) -> Tensor:
    """Encoding of T frames, channels last: (T, h, w, dim). One frame is an image, without time."""
    frames, h, w = size
    if frames == 1:
        return sine_encoding_2d((h, w), dim // 2, device=device).permute(0, 2, 3, 1)
    return sine_encoding_3d(size, dim // 2, device=device)[0].permute(0, 2, 3, 1)


def resize_positions(
    embedding: Tensor, size: tuple[int, int], interpolation: str = "bicubic", others: int = 1
) -> Tensor:
    """The embedding of a square grid, (1, others+N, D), for a grid of another size.

    The first `others` positions, of a class token, are kept.
    """
    first, grid = embedding[:, :others], embedding[:, others:]
    side = round(grid.shape[1] ** 0.5)
    if side**2 != grid.shape[1]:
        beside = " beside a class token" if others else ""
        raise ValueError(f"{grid.shape[1]} positions are no square grid{beside}")
    grid = grid.mT.unflatten(2, (side, side))  # (1, D, side, side)
    grid = F.interpolate(grid, size, mode=interpolation, align_corners=False)
    return torch.cat([first, grid.flatten(2).mT], dim=1)


def _positions(real: Tensor, axis: int, normalize: bool) -> Tensor:
    """The running number of each cell along an axis, from 1, or scaled to (0, 2 pi]."""
    count = real.cumsum(axis)
    if not normalize:
        return count
    last = count.narrow(axis, -1, 1)
    return count / (last + _EPSILON) * (2 * math.pi)


def _waves(positions: Tensor, num_feats: int) -> Tensor:
    """sin, cos, sin, cos, ... of growing wavelength: (...) -> (..., num_feats)."""
    pair = torch.arange(num_feats, device=positions.device) // 2
    angles = positions[..., None] / _TEMPERATURE ** (2 * pair.float() / num_feats)
    pairs = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return pairs.flatten(-2)


def resize_offsets(table: Tensor, grid: tuple[int, int], others: int = 0) -> Tensor:
    """Biases of the offsets in a square grid, (offsets + others, M), for a grid of another size.

    As in BEiT, the old offsets lie among the new ones in a geometric progression, with cubic
    splines between them: near offsets keep their biases. The last `others` rows are kept.
    """
    offsets, rest = table.split([len(table) - others, others])
    side = math.isqrt(len(offsets))
    if side**2 != len(offsets) or side % 2 == 0:
        raise ValueError(f"its {len(offsets)} offsets are not those of a square grid")
    maps = offsets.T.unflatten(1, (side, side)).double()  # (M, side, side)
    down, right = (_spline(side, 2 * length - 1).to(maps) for length in grid)
    maps = down @ maps @ right.mT  # (M, 2h-1, 2w-1)
    return torch.cat([maps.flatten(1).T.to(table), rest])


def _spline(old: int, new: int) -> Tensor:
    """(new, old): what values at `new` offsets are of those at `old`, both around zero."""
    from scipy.interpolate import make_interp_spline

    if old == 1:
        return torch.ones(new, 1)
    steps = _progression(old // 2, new // 2)
    places = np.concatenate([-steps[::-1], [0.0], steps])
    spline = make_interp_spline(places, np.eye(old), k=3 if old > 3 else 1)
    return torch.from_numpy(spline(np.arange(-(new // 2), new // 2 + 1)))


def _progression(count: int, last: int) -> np.ndarray:
    """1, 1 + q, 1 + q + q², ..., of which the last is `last`, for a q of at least 1.01."""
    low, high = 1.01, max(1.5, last)
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (ratio**count - 1) / (ratio - 1) > last:
            high = ratio
        else:
            low = ratio
    return np.cumsum(ratio ** np.arange(count))
