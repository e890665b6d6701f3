"""Averages over the cells of a grid."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.exporting import is_exporting


def average_cells(x: Tensor, cells: int) -> Tensor:
    """F.adaptive_avg_pool2d: (B, C, h, w) -> (B, C, cells, cells)."""
    if is_exporting():  # ONNX has it for one size only; two products take every size
        return average_by_products(x, cells)
    return F.adaptive_avg_pool2d(x, cells)


def average_by_products(x: Tensor, cells: int) -> Tensor:
    """The same; h and w may be symbols."""
    down, right = (_shares(side, cells, x) for side in x.shape[-2:])
    return down @ x @ right.mT


def _shares(side: int, cells: int, like: Tensor) -> Tensor:
    """How much of each cell's average each place has: (cells, side)."""
    numbers = torch.arange(cells, device=like.device)[:, None]
    start = (numbers * side / cells).floor()
    end = ((numbers + 1) * side / cells).ceil()
    places = torch.arange(side, device=like.device)
    return ((places >= start) & (places < end)).to(like.dtype) / (end - start)
