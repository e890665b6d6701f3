"""Label images whose pixels have the colour of their class.

In a map of raw values, a colour is the number COLOR + 65536 R + 256 G + B, above all values of
label images of one channel.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np

COLOR = 1 << 24
_SHOWN = 5
_ON_THE_LINE = 6  # the largest distance of a mixed colour from the line between its two colours


def color_values(pixels: np.ndarray) -> np.ndarray:
    """The raw value of each colour: (..., 3) bytes, or more channels, of which 3 count -> (...)."""
    red, green, blue = (pixels[..., i].astype(np.int32) for i in range(3))
    return COLOR + (red << 16) + (green << 8) + blue


def as_color(value: int) -> list[int]:
    """[red, green, blue] of a raw value."""
    return [value >> 16 & 255, value >> 8 & 255, value & 255]


def value_text(value: int) -> str:
    """A raw value as errors show it."""
    return str(as_color(value)) if value >= COLOR else str(value)


def classes_of_colors(values: np.ndarray, label_colors: np.ndarray | None) -> np.ndarray:
    """The class id or ignored label of raw values of colours, -1 for others: the same shape.

    label_colors: (N, 4), rows of red, green, blue and class id or ignored label.
    """
    colors = np.asarray([] if label_colors is None else label_colors, np.int64).reshape(-1, 4)
    if not len(colors):
        return np.full(values.shape, -1)
    known = color_values(colors)
    order = known.argsort()
    row = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[row] == values, colors[row, 3], -1)


def shares_text(values: np.ndarray, pixels: np.ndarray) -> str:
    """The most frequent colours with their shares: "[0, 0, 0] 96 %, [200, 30, 30] 4 %"."""
    order = np.argsort(-pixels, kind="stable")[:_SHOWN]
    shares = [f"{as_color(int(values[i]))} {100 * pixels[i] / pixels.sum():.2g} %" for i in order]
    return ", ".join(shares) + (", ..." if len(values) > _SHOWN else "")


def likely_cause(unknown: Iterable[int], label_colors: np.ndarray) -> str:
    """Why label images have such colours, and what to do."""
    known = np.unique(np.asarray(label_colors)[:, :3], axis=0)[:64].astype(float)
    for color in (np.array(as_color(value), float) for value in list(unknown)[:64]):
        for a, b in combinations(known, 2):
            share = np.clip((color - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            if np.abs(a + share * (b - a) - color).max() <= _ON_THE_LINE:
                return ("one lies between the colours of two classes, so the edges are probably "
                        "anti-aliased: export masks without smoothing, as PNG")
    return "a class may be missing, or have another colour"
