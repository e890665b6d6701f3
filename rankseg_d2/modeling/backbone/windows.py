"""Maps in windows, within which attention stays: those of Swin, and the stripes of CSWin."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ...ops.exporting import is_exporting


def whole_windows(length: int, size: int) -> int:
    """The length, rounded up to whole windows."""
    if not isinstance(size, int):  # in a graph for any size: a window over the whole length
        return length
    windows = (length + size - 1) // size  # ONNX rounds the quotient of a negative number up
    if is_exporting() and not isinstance(windows, int):
        # A number of the graph's own: else the exporter solves equations of remainders, for hours.
        windows = torch.full((), windows).item()
        torch._check(windows >= 1)
    return windows * size


def padded(x: Tensor, size: tuple[int, int], before: tuple[int, int] = (0, 0)) -> Tensor:
    """(B, h, w, D), padded with zeros to this size, `before` of them above and on the left."""
    height, width = x.shape[1:3]
    top, left = before
    if isinstance(height, int):  # else it is a symbol, in a graph for any size
        return F.pad(x, (0, 0, left, size[1] - width - left, top, size[0] - height - top))
    rows, columns = _places(x, size, (-top, -left))
    x = x.index_select(1, rows.clamp(0, height - 1)).index_select(2, columns.clamp(0, width - 1))
    is_row, is_column = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return x * (is_row[:, None] & is_column)[..., None]


def cropped(x: Tensor, size: tuple[int, int], before: tuple[int, int] = (0, 0)) -> Tensor:
    """What `padded` has padded to (B, h, w, D)."""
    (height, width), (top, left) = size, before
    if isinstance(height, int):
        return x[:, top : top + height, left : left + width]
    rows, columns = _places(x, size, before)
    return x.index_select(1, rows).index_select(2, columns)


def _places(x, size, first):
    return (torch.arange(n, device=x.device) + i for n, i in zip(size, first, strict=True))


def to_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w, D) -> (B, W, N, D): W windows of `size`, row by row, each with its N tokens."""
    x = x.unflatten(2, (-1, size[1])).unflatten(1, (-1, size[0]))  # (B, rows, r, columns, c, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_windows(x: Tensor, size: tuple[int, int], width: int) -> Tensor:
    """(B, W, N, D) -> (B, h, w, D), a map of this width."""
    x = x.unflatten(2, size).unflatten(1, (-1, width // size[1]))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
