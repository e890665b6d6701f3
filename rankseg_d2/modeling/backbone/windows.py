"""Maps in windows, within which attention stays: those of Swin, and the stripes of CSWin."""

from torch import Tensor


def to_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w, D) -> (B, W, N, D): W windows of `size`, row by row, each with its N tokens."""
    x = x.unflatten(2, (-1, size[1])).unflatten(1, (-1, size[0]))  # (B, rows, r, columns, c, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_windows(x: Tensor, size: tuple[int, int], width: int) -> Tensor:
    """(B, W, N, D) -> (B, h, w, D), a map of this width."""
    x = x.unflatten(2, size).unflatten(1, (-1, width // size[1]))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
