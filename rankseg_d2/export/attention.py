"""Multi-scale deformable attention in plain operations that every runtime has."""

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(
    value: Tensor, sizes: list[int], points: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """As `ms_deform_attn_fused`, with sizes h0, w0, h1, w1, ... that may be symbols: (B, Q, M*D).

    Args:
        value: (B, S, M, D).
        points: (B, Q, L, 2).
        offsets: (B, Q, M, L, P, 2).
        logits: (B, Q, M, L, P).
    """
    weights = logits.flatten(-2).softmax(-1).unflatten(-1, logits.shape[-2:])
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    places = []  # in cells of their level, from the centre of its first one
    for level, (height, width) in enumerate(pairs):
        x, y = offsets[:, :, :, level].unbind(-1)  # (B, Q, M, P)
        center_x, center_y = points[:, :, level, None, None].unbind(-1)  # (B, Q, 1, 1)
        places.append((center_x * width + x - 0.5, center_y * height + y - 0.5))
    return _gathered(value, pairs, places, weights)


def attend_at(value: Tensor, sizes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    """As `ms_deform_attn`: locations (B, Q, M, L, P, 2) in [0, 1], weights (B, Q, M, L, P)."""
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    places = []
    for level, (height, width) in enumerate(pairs):
        x, y = locations[:, :, :, level].unbind(-1)
        places.append((x * width - 0.5, y * height - 0.5))
    return _gathered(value, pairs, places, weights)


def _gathered(
    value: Tensor, pairs: list[tuple], places: list[tuple[Tensor, Tensor]], weights: Tensor
) -> Tensor:
    """The four cells around each place, read as rows of one table, and their weighted sum."""
    batch, count, heads, channels = value.shape
    table = value.reshape(-1, channels)  # (B*S*M, D)
    image = torch.arange(batch, device=value.device)[:, None, None, None] * count
    head = torch.arange(heads, device=value.device)[:, None]  # (M, 1)
    rows, shares, start = [], [], 0
    for level, (height, width) in enumerate(pairs):
        x, y = places[level]
        left, top = x.floor(), y.floor()
        for low_x, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            for low_y, share_y in ((top, top + 1 - y), (top + 1, y - top)):
                inside = (low_x >= 0) & (low_x < width) & (low_y >= 0) & (low_y < height)
                column, row = low_x.clamp(0, width - 1), low_y.clamp(0, height - 1)
                cell = row.long() * width + column.long() + start
                rows.append((image + cell) * heads + head)
                shares.append(share_x * share_y * inside * weights[:, :, :, level])
        start = start + height * width
    cells = F.embedding(torch.cat(rows, -1), table)  # (B, Q, M, 4*L*P, D)
    read = torch.cat(shares, -1).unsqueeze(-2) @ cells  # (B, Q, M, 1, D)
    return read.flatten(2)  # (B, Q, M*D)


def _sampled(
    value: Tensor, pairs: list[tuple], places: list[tuple[Tensor, Tensor]], weights: Tensor
) -> Tensor:
    batch, _, heads, channels = value.shape
    total, start = 0, 0
    for level, (height, width) in enumerate(pairs):
        part = value[:, start : start + height * width]
        start = start + height * width
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        x, y = places[level]
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        grid = grid.transpose(1, 2).flatten(0, 1)  # (B*M, Q, P, 2)
        samples = F.grid_sample(maps, grid, align_corners=False)  # (B*M, D, Q, P)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B*M, Q, P)
        total = total + (samples * weight[:, None]).sum(-1)
    return total.reshape(batch, heads * channels, -1).transpose(1, 2)
