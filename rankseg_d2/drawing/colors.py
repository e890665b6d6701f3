"""Colours of classes, of instances and of what a list says; all are RGB."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..errors import short

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 124, 130)
RIGHT, WRONG, MISSED = (20, 120, 40), (190, 40, 30), (190, 110, 0)
RULE, FRAME, IGNORED = (232, 234, 238), (190, 194, 200), (168, 172, 178)
LINES = np.array(  # of curves and bars: calm, and distinct to the colour-blind
    [
        (45, 104, 178), (222, 124, 32), (32, 142, 116), (190, 62, 84),
        (122, 92, 176), (128, 98, 70), (96, 160, 212), (150, 150, 60),
    ],
    np.uint8,
)  # fmt: skip

_TINTS = (0, 0.34, -0.26, 0.17, -0.14, 0.46, -0.36, 0.25, -0.2, 0.4)


def class_colors(names: Sequence[str], colors: Sequence | np.ndarray | None = None) -> np.ndarray:
    """The palette, or a colour made from each name, the same in every list: (C, 3) uint8."""
    if colors is not None:
        return _palette(colors, len(names))
    return _from_names(tuple(map(str, names))).copy()


@lru_cache(16)
def _from_names(names: tuple[str, ...]) -> np.ndarray:
    if not names:
        return np.zeros((0, 3), np.uint8)
    digests = (hashlib.blake2b(name.encode(errors="replace"), digest_size=6) for name in names)
    draws = np.frombuffer(b"".join(d.digest() for d in digests), "<u2").reshape(-1, 3) / 2**16
    lightness, chroma = 0.56 + 0.26 * draws[:, 1], 0.10 + 0.08 * draws[:, 2]
    return _from_oklch(lightness, chroma, 2 * np.pi * draws[:, 0])


def _palette(colors: Sequence | np.ndarray, count: int) -> np.ndarray:
    try:
        values = np.asarray(colors)
        if values.size == 0:
            values = np.zeros((0, 3), np.uint8)
        fits = values.shape == (count, 3) and ((values >= 0) & (values <= 255)).all()
    except (ValueError, TypeError):  # rows of several lengths; text
        fits = False
    if not fits:
        raise ValueError(
            f"colors must have one row (R, G, B) of 0 to 255 for each of the {count} names, got "
            f"{short(colors)}"
        )
    return values.astype(np.uint8)


def _from_oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Colours (C, 3) uint8, evenly spread to the eye; what sRGB lacks gets less chroma."""
    for _ in range(12):
        linear = _linear_rgb(lightness, chroma, hue)
        outside = (linear.min(1) < 0) | (linear.max(1) > 1)
        if not outside.any():
            break
        chroma = np.where(outside, 0.9 * chroma, chroma)
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Ottosson's matrices of 2020: https://bottosson.github.io/posts/oklab"""
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1)
    to_cones = [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
    to_rgb = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    return (lab @ np.transpose(to_cones)) ** 3 @ np.transpose(to_rgb)


def spread_colors(count: int) -> np.ndarray:
    """Colours that differ much from those before them: (count, 3) uint8."""
    numbers = np.arange(count)
    lightness = np.array([0.68, 0.56, 0.8, 0.62, 0.74])[numbers % 5]
    return _from_oklch(lightness, np.full(count, 0.15), numbers * np.pi * (3 - np.sqrt(5)))


def tint(color: Sequence[int], number: int) -> np.ndarray:
    """The colour of a class's instance `number`: lighter or darker, the first as it is; (3,)."""
    amount = _TINTS[number % len(_TINTS)]
    return mixed(color, PAPER if amount > 0 else (0, 0, 0), abs(amount))


def mixed(color: Sequence[int], other: Sequence[int], share: float) -> np.ndarray:
    """The colour with a share of the other one: (3,) uint8."""
    return ((1 - share) * np.asarray(color, float) + share * np.asarray(other)).astype(np.uint8)
