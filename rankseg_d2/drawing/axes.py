"""The frame of a chart: title, scales with round ticks, grid, legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import short
from .colors import FAINT, FRAME, INK, LINES, PAPER, RULE
from .text import draw_text, fitting, line_height, text_width

SIZE = 12  # of the letters
_TITLE = 15
_X_DISTANCE, _Y_DISTANCE = 56, 30  # between ticks, at the least
_SHIFT = 4  # OpenCV takes fractions of pixels as integers of 2**-4


def new_paper(size: tuple[int, int], title: str) -> np.ndarray:
    """White paper of (width, height) with a title at the top left."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (width, height) in pixels, got {short(size)}")
    paper = np.full((int(size[1]), int(size[0]), 3), PAPER, np.uint8)
    draw_text(paper, fitting(title, _TITLE, size[0] - 16), (8, 6), _TITLE, INK)
    return paper


def title_height(title: str) -> int:
    return line_height(_TITLE) + 12 if title else 10


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Numbers from `low` to `high`, at most `count` steps of 1, 2 or 5 times a power of ten."""
    step = _round_step(high - low, count)
    if step is None:
        return []
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_step(span: float, count: int) -> float | None:
    if not (math.isfinite(span) and span > 0):
        return None
    power = 10.0 ** math.floor(math.log10(span / count))
    return next((power * m for m in (1, 2, 5) if power * m * count >= span), power * 10)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """The number with as many digits as tell the ticks apart: 0.25, 40, 20k, 1.5M."""
    largest = max(map(abs, ticks), default=0)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1
    if largest and not 1e-4 <= largest < 1e12:
        return f"{value:.3g}"
    unit, sign = next(
        (pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= 10 * pair[0]),
        (1.0, ""),
    )
    digits = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    text = f"{value / unit:.{digits}f}"
    return "0" if float(text) == 0 else text + sign


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` lie between the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, values: np.ndarray | float) -> np.ndarray:
        share = (np.asarray(values, float) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def limits(values: np.ndarray, from_zero: bool = False) -> tuple[float, float]:
    """The smallest and the largest finite value, apart from each other."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if from_zero:
        values = np.append(values, 0)
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 1.0
        return (0.0, 2 * high) if from_zero and high > 0 else (low - margin, high + margin)
    return low, high


def widened(low: float, high: float, height: int) -> tuple[float, float]:
    """The limits moved outwards to the next ticks of a y axis of this height in pixels."""
    step = _round_step(high - low, _tick_count(Scale(low, high, 0, height), _Y_DISTANCE))
    if step is None:
        return low, high
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def draw_y_axis(paper: np.ndarray, scale: Scale, left: int, right: int, label: str) -> None:
    """Grid lines with their numbers to the left, and the label above them."""
    ticks = round_ticks(scale.low, scale.high, _tick_count(scale, _Y_DISTANCE))
    for tick in ticks:
        y = round(float(scale.at(tick)))
        paper[y : y + 1, left:right] = FRAME if tick == ticks[0] and tick == scale.low else RULE
        text = tick_text(tick, ticks)
        draw_text(paper, text, (left - 6, y - line_height(SIZE) // 2), SIZE, FAINT, align=1)
    if label:
        top = round(min(scale.start, scale.end)) - line_height(SIZE) - 6
        draw_text(paper, fitting(label, SIZE, right - 8), (8, top), SIZE, FAINT)


def y_axis_width(low: float, high: float, height: int) -> int:
    """The pixels that the numbers of a y axis need."""
    ticks = round_ticks(low, high, _tick_count(Scale(low, high, 0, height), _Y_DISTANCE))
    return max([text_width(tick_text(tick, ticks), SIZE) for tick in ticks], default=0) + 14


def draw_x_axis(paper: np.ndarray, scale: Scale, bottom: int, label: str, top: int | None) -> None:
    """Numbers below the line at `bottom`, grid lines up to `top` if given, the label below."""
    ticks = round_ticks(scale.low, scale.high, _tick_count(scale, _X_DISTANCE))
    for tick in ticks:
        x = round(float(scale.at(tick)))
        if top is not None:
            paper[top:bottom, x : x + 1] = RULE
        paper[bottom : bottom + 4, x : x + 1] = FRAME
        draw_text(paper, tick_text(tick, ticks), (x, bottom + 5), SIZE, FAINT, align=0.5)
    end = max(scale.start, scale.end)
    if label:
        draw_text(paper, label, (end, bottom + 5 + line_height(SIZE)), SIZE, FAINT, align=1)


def x_axis_height(label: str) -> int:
    return (2 if label else 1) * line_height(SIZE) + 10


def _tick_count(scale: Scale, distance: int) -> int:
    return max(int(abs(scale.end - scale.start)) // distance, 2)


def line_color(number: int) -> tuple[int, int, int]:
    """The colour of the curve or bar of this number; each later round of colours is darker."""
    color = LINES[number % len(LINES)] * 0.7 ** (number // len(LINES))
    return tuple(int(channel) for channel in color)


def draw_curve(paper: np.ndarray, points: np.ndarray, color: Sequence[int], width: int = 2) -> None:
    """A smooth line through (N, 2) pixel positions, which may lie between pixels."""
    fixed = np.round(points * 2**_SHIFT).astype(np.int32)
    color = [int(channel) for channel in color]
    cv2.polylines(paper, [fixed], False, color, width, cv2.LINE_AA, _SHIFT)


def draw_dot(paper: np.ndarray, point: np.ndarray, color: Sequence[int], radius: float) -> None:
    fixed = [int(round(float(side) * 2**_SHIFT)) for side in point]
    color = [int(channel) for channel in color]
    cv2.circle(paper, fixed, int(radius * 2**_SHIFT), color, -1, cv2.LINE_AA, _SHIFT)


def say_nothing(paper: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """The words for a chart without a number, in its box (left, top, right, bottom)."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3] - line_height(SIZE)) // 2
    paper[max(y, 0) : max(y + line_height(SIZE), 0), box[0] : box[2]] = PAPER  # no line behind them
    draw_text(paper, "no values", (x, y), SIZE, FAINT, align=0.5)
