"""Curves and bars: plain, anti-aliased, without matplotlib."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import short
from . import axes
from .axes import SIZE, Scale
from .colors import FAINT, FRAME, INK, LINES, PAPER, mixed
from .panels import Row, draw_list
from .text import draw_text, fitting, line_height, text_width

_LEGEND = 0.3  # the largest share of the width
_LINE = line_height(SIZE) + 5  # of a named row


def plot_curves(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    size: tuple[int, int] = (640, 360),
    y_limits: tuple[float, float] | None = None,
    x_limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Curves by name, with a legend to the right if there are several: (height, width, 3).

    Args:
        series: y values, or (x values, y values), in the order of x. NaN leaves a gap; a point
            between two gaps is a dot.
        size: (width, height) in pixels.
        y_limits, x_limits: the ends of the axes; by default those of the values.
    """
    for name, ends in (("y_limits", y_limits), ("x_limits", x_limits)):
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{name} must be (lower, upper), got {short(ends)}")
    curves = {str(name): _curve(name, values) for name, values in series.items()}
    paper = axes.new_paper(size, title)
    legend = _legend(list(curves), size) if len(curves) > 1 else None
    right = size[0] - 16 - (legend.shape[1] if legend is not None else 0)
    top = axes.title_height(title) + (line_height(SIZE) + 4 if y_label else 0)
    bottom = size[1] - axes.x_axis_height(x_label)
    points = np.concatenate([np.zeros((0, 2)), *curves.values()])
    points = points[np.isfinite(points).all(1)]
    low, high = y_limits or axes.widened(*axes.limits(points[:, 1]), bottom - top)
    left = axes.y_axis_width(low, high, bottom - top)
    if legend is not None:
        _paste(paper, legend, right + 8, top)
    if right - left < 20 or bottom - top < 20:
        return paper
    x_scale = Scale(*(x_limits or axes.limits(points[:, 0])), left, right)
    y_scale = Scale(low, high, bottom, top)
    axes.draw_x_axis(paper, x_scale, bottom, x_label, None)
    axes.draw_y_axis(paper, y_scale, left, right, y_label)
    paper[bottom : bottom + 1, left:right] = FRAME
    if not len(points):
        axes.say_nothing(paper, (left, top, right, bottom))
    area = paper[max(top - 3, 0) : bottom + 3, left - 3 : right + 3]  # curves end at its sides
    for number, curve in enumerate(curves.values()):
        pixels = np.stack([x_scale.at(curve[:, 0]), y_scale.at(curve[:, 1])], 1)
        _draw_gapped(area, pixels - (left - 3, max(top - 3, 0)), axes.line_color(number))
    return paper


def _curve(name: str, values: Sequence) -> np.ndarray:
    """The points (N, 2) of one series."""
    try:
        is_pair = isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1
        x, y = values if is_pair else (np.arange(len(values)), values)
        return np.stack([np.asarray(x, float), np.asarray(y, float)], 1).reshape(-1, 2)
    except (ValueError, TypeError):
        raise ValueError(
            f"the curve {short(name)} must be y values, or x values and as many y values, got "
            f"{short(values)}"
        ) from None


def _draw_gapped(area: np.ndarray, points: np.ndarray, color: Sequence[int]) -> None:
    there = np.isfinite(points).all(1)
    # Far outside, OpenCV's integers would overflow.
    points = np.clip(np.where(there[:, None], points, 0), -10000, 30000)
    starts = np.flatnonzero(there & ~np.append(False, there[:-1]))
    ends = np.flatnonzero(there & ~np.append(there[1:], False)) + 1
    for start, end in zip(starts, ends, strict=True):
        if end - start == 1:
            axes.draw_dot(area, points[start], color, 2.5)
        else:
            axes.draw_curve(area, points[start:end], color)


def _legend(names: list[str], size: tuple[int, int]) -> np.ndarray:
    rows = [Row(name, color=axes.line_color(i)) for i, name in enumerate(names)]
    needed = draw_list(rows, size=SIZE).shape[1]
    width = min(needed, round(_LEGEND * size[0]))
    return draw_list(rows, size=SIZE, width=width, height=max(size[1] - 40, 1))


def _paste(paper: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    area = paper[y : y + part.shape[0], x : x + part.shape[1]]
    area[:] = part[: area.shape[0], : area.shape[1]]


def bar_chart(
    values: Mapping[str, float],
    title: str = "",
    label: str = "",
    size: tuple[int, int] | None = None,
    *,
    upright: bool = False,
    colors: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """A bar for each name: names to the left and numbers behind the bars; NaN is a dash.

    Args:
        label: what the values are.
        size: (width, height); by default as high as the bars need. Bars that do not fit are left
            out, and counted in the last line.
        upright: columns instead, for histograms, whose names are written where they fit.
        colors: of the bars, one each.
    """
    names, numbers = list(map(str, values)), np.array([*values.values()], float)
    bars = colors if colors is not None else [LINES[0]] * len(names)
    if len(bars) != len(names):
        raise ValueError(f"{len(names)} bars have {len(bars)} colors; give one for each")
    if upright:
        return _columns(names, numbers, title, label, size or (640, 320), bars)
    paper, scale, shown = _rows(names, axes.limits(numbers, from_zero=True), title, label, size)
    if scale is None:
        return paper
    top = axes.title_height(title)
    for number in range(shown):
        y = top + number * _LINE
        _draw_bar(paper, names[number], numbers[number], y, scale, bars[number])
    zero = round(float(scale.at(0)))
    paper[top : paper.shape[0] - axes.x_axis_height(label), zero : zero + 1] = FRAME
    return paper


def dot_chart(
    values: Mapping[str, Sequence[float]],
    title: str = "",
    label: str = "",
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """A row for each name: a dot for each value, and a bar of mean ± standard error.

    Args: as those of `bar_chart`; behind the dots stands the mean.
    """
    names, groups = list(map(str, values)), [np.asarray(group, float) for group in values.values()]
    low, high = axes.limits(np.concatenate([np.zeros(0), *groups]))
    margin = (high - low) / 30
    paper, scale, shown = _rows(names, (low - margin, high + margin), title, label, size)
    if scale is None:
        return paper
    for number in range(shown):
        y = axes.title_height(title) + number * _LINE
        _draw_dots(paper, names[number], groups[number], y, scale)
    return paper


def _rows(
    names: list[str],
    ends: tuple[float, float],
    title: str,
    label: str,
    size: tuple[int, int] | None,
) -> tuple[np.ndarray, Scale | None, int]:
    """Paper with an x axis for named rows, its scale, and how many of the rows fit.

    The scale is None where the paper is too narrow.
    """
    top, bottom_margin = axes.title_height(title), axes.x_axis_height(label)
    size = size or (560, top + max(len(names), 1) * _LINE + bottom_margin + 4)
    paper = axes.new_paper(size, title)
    bottom = size[1] - bottom_margin
    places = max((bottom - top) // _LINE, 0)
    shown = len(names) if len(names) <= places else max(places - 1, 0)
    left = 16 + min(max([text_width(n, SIZE) for n in names[:shown]], default=0), size[0] // 3)
    right = size[0] - 48  # numbers stand there
    if right - left < 20:
        return paper, None, 0
    scale = Scale(*ends, left, right)
    axes.draw_x_axis(paper, scale, bottom, label, top)
    if shown < len(names):
        text = f"and {len(names) - shown} more"
        draw_text(paper, text, (left, top + shown * _LINE + 2), SIZE, FAINT)
    if not len(names):
        axes.say_nothing(paper, (left, top, right, bottom))
    return paper, scale, shown


def _draw_name(paper: np.ndarray, name: str, y: int, scale: Scale) -> None:
    """The name of a row, to the left of the scale, in the line below y."""
    left = round(scale.start) - 8
    draw_text(paper, fitting(name, SIZE, left - 8), (left, y + 2), SIZE, INK, align=1)


def _draw_dots(paper: np.ndarray, name: str, group: np.ndarray, y: int, scale: Scale) -> None:
    """A name, its dots, and mean ± standard error over them, in the line below y."""
    _draw_name(paper, name, y, scale)
    group = group[np.isfinite(group)]
    if not len(group):
        draw_text(paper, "–", (scale.start + 6, y + 2), SIZE, FAINT)
        return
    mean, middle = group.mean(), y + _LINE / 2
    error = group.std(ddof=1) / len(group) ** 0.5 if len(group) > 1 else 0.0
    sides = scale.at(mean - error) - 1, scale.at(mean + error) + 1
    _fill(paper, (sides[0], middle - 5, sides[1], middle + 5), mixed(LINES[0], PAPER, 0.5))
    for value in group:
        axes.draw_dot(paper, np.array([scale.at(value), middle]), LINES[0], 3)
    last = max(float(scale.at(group.max())) + 3, sides[1])
    draw_text(paper, f"{mean:.1f}", (last + 6, y + 2), SIZE, FAINT)


def _draw_bar(
    paper: np.ndarray, name: str, value: float, y: int, scale: Scale, color: Sequence[int]
) -> None:
    """A name, its bar and its number, in the line below y."""
    zero = float(scale.at(0))
    end = float(scale.at(value)) if np.isfinite(value) else zero
    text = f"{value:.3g}" if np.isfinite(value) else "–"
    _draw_name(paper, name, y, scale)
    sides = min(zero, end), max(zero, end)
    _fill(paper, (sides[0], y + 3, sides[1], y + line_height(SIZE) + 2), color)
    draw_text(paper, text, (sides[1] + 6, y + 2), SIZE, FAINT)


def _columns(
    names: list[str],
    numbers: np.ndarray,
    title: str,
    label: str,
    size: tuple[int, int],
    colors: Sequence[Sequence[int]],
) -> np.ndarray:
    paper = axes.new_paper(size, title)
    top = axes.title_height(title) + (line_height(SIZE) + 4 if label else 0)
    right, bottom = size[0] - 16, size[1] - axes.x_axis_height("")
    low, high = axes.widened(*axes.limits(numbers, from_zero=True), bottom - top)
    left = axes.y_axis_width(low, high, bottom - top)
    if right - left < 20 or bottom - top < 20:
        return paper
    scale = Scale(low, high, bottom, top)
    axes.draw_y_axis(paper, scale, left, right, label)
    zero, step = float(scale.at(0)), (right - left) / max(len(names), 1)
    widest = max([text_width(name, SIZE) for name in names], default=0) + 8
    every = max(-(-widest // max(int(step), 1)), 1)  # so many names are left out
    gap = min(step / 8, 6)
    for number, value in enumerate(numbers):
        x = left + number * step
        if np.isfinite(value):
            ends = sorted([zero, float(scale.at(value))])
            _fill(paper, (x + gap, ends[0], x + step - gap, ends[1]), colors[number])
        if number % every == 0:
            draw_text(paper, names[number], (x + step / 2, bottom + 5), SIZE, FAINT, align=0.5)
    if not np.isfinite(numbers).any():
        axes.say_nothing(paper, (left, top, right, bottom))
    paper[round(zero) : round(zero) + 1, left:right] = FRAME
    return paper


def _fill(paper: np.ndarray, box: tuple[float, float, float, float], color: Sequence[int]) -> None:
    """A rectangle (left, top, right, bottom) whose ends may lie within pixels."""
    covered = [
        np.clip(np.minimum(np.arange(length) + 1, end) - np.maximum(np.arange(length), start), 0, 1)
        for start, end, length in (
            (box[1], box[3], paper.shape[0]), (box[0], box[2], paper.shape[1])
        )
    ]  # fmt: skip
    rows, columns = (np.flatnonzero(part) for part in covered)
    if not (len(rows) and len(columns)):
        return
    area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    share = np.outer(covered[0][rows], covered[1][columns])[..., None]
    paper[area] = np.round(paper[area] * (1 - share) + np.asarray(color) * share)
