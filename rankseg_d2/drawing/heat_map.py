"""A matrix of numbers as colours, such as the confusion of classes."""

from collections.abc import Sequence

import cv2
import numpy as np

from . import axes
from .axes import SIZE
from .colors import FAINT, FRAME, IGNORED, INK, PAPER
from .text import draw_text, fitting, line_height, text_width


def heat_map(
    matrix: np.ndarray,
    names: Sequence[str],
    title: str = "",
    x_label: str = "predicted",
    y_label: str = "ground truth",
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """A matrix (rows, columns) as colours, from white for 0 to dark blue for the largest value.

    NaN is grey. Numbers are written where the cells are large enough, and as many names as fit.

    Args:
        names: of the columns, and of the rows, which may be the first of them only.
        size: (width, height); by default 22 pixels for a cell, 1,000 for all at the most.
    """
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or not max(matrix.shape) <= len(names):
        raise ValueError(
            f"a heat map of {len(names)} names needs a matrix (rows, columns) of as many at the "
            f"most, got {matrix.shape}"
        )
    rows, columns = matrix.shape
    margin = min(max([text_width(str(n), SIZE) for n in names], default=0), 150) + 12
    left, top = margin + 18, axes.title_height(title) + margin + 18
    if size is None:
        cell = min(22.0, 1000 / max(rows, columns, 1))
        size = (round(left + columns * cell + 70), round(top + rows * cell + 12))
        size = (max(size[0], left + 120), max(size[1], top + 80))
    paper = axes.new_paper(size, title)
    cell = min((size[0] - left - 70) / max(columns, 1), (size[1] - top - 12) / max(rows, 1))
    if not matrix.size or cell * max(rows, columns) < 1:
        axes.say_nothing(paper, (left, top, *size))
        return paper
    high = float(matrix.max(initial=0, where=np.isfinite(matrix)))
    width, height = max(round(columns * cell), 1), max(round(rows * cell), 1)
    paper[top : top + height, left : left + width] = _heat(matrix, high, width, height)
    cv2.rectangle(paper, (left - 1, top - 1), (left + width, top + height), FRAME)
    _name_sides(paper, names, (left, top), cell, matrix.shape, margin)
    _number_cells(paper, matrix, high, (left, top), cell)
    draw_text(paper, x_label, (left, top - margin - 20), SIZE, FAINT)
    draw_text(paper, y_label, (2, top), SIZE, FAINT, upright=True, align=1)
    _draw_scale(paper, high, left + width + 14, top, min(height, 160))
    return paper


def _heat(matrix: np.ndarray, high: float, width: int, height: int) -> np.ndarray:
    """The cells' colours (height, width, 3), NaN grey; a pixel of several cells is the largest."""
    for axis, length in enumerate((height, width)):
        if matrix.shape[axis] > length:
            starts = np.arange(length) * matrix.shape[axis] // length
            matrix = np.fmax.reduceat(matrix, starts, axis)
    known = np.isfinite(matrix)
    picture = _ramp(np.where(known, matrix, 0) / (high or 1))
    picture[~known] = IGNORED
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)


def _ramp(share: np.ndarray) -> np.ndarray:
    """White, light blue, blue, dark blue; small values differ the most."""
    stops = np.array([PAPER, (158, 202, 225), (49, 112, 184), (8, 32, 84)], float)
    position = np.sqrt(share.clip(0, 1))
    channels = [np.interp(position, [0, 0.4, 0.75, 1], stops[:, i]) for i in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _name_sides(
    paper: np.ndarray,
    names: Sequence[str],
    corner: tuple[int, int],
    cell: float,
    shape: tuple[int, ...],
    margin: int,
) -> None:
    left, top = corner
    every = max(int(np.ceil(line_height(SIZE) / cell)), 1)
    for number in range(0, shape[0], every):
        text = fitting(str(names[number]), SIZE, margin - 8)
        y = top + (number + 0.5) * cell - line_height(SIZE) / 2
        draw_text(paper, text, (left - 6, y), SIZE, INK, align=1)
    for number in range(0, shape[1], every):
        text = fitting(str(names[number]), SIZE, margin - 8)
        x = left + (number + 0.5) * cell - line_height(SIZE) / 2
        draw_text(paper, text, (x, top - 6), SIZE, INK, upright=True)


def _number_cells(
    paper: np.ndarray, matrix: np.ndarray, high: float, corner: tuple[int, int], cell: float
) -> None:
    size = 10
    texts = {}
    for place, value in np.ndenumerate(matrix) if cell >= 20 else ():
        if np.isfinite(value) and value >= (0.005 if high <= 1 else 0.5):
            texts[place] = f"{value:.2f}".lstrip("0") if high <= 1 else f"{value:.0f}"
    if any(text_width(text, size) > cell - 2 for text in texts.values()):
        return
    for (row, column), text in texts.items():
        x, y = corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell
        dark = matrix[row, column] > 0.3 * high
        ink = PAPER if dark else INK
        draw_text(paper, text, (x, y - line_height(size) / 2), size, ink, align=0.5)


def _draw_scale(paper: np.ndarray, high: float, x: int, top: int, height: int) -> None:
    """The colours of the values, with their numbers."""
    if height < 30 or not high:
        return
    ramp = _ramp(np.linspace(1, 0, height))[:, None]
    area = paper[top : top + height, x : x + 10]
    area[:] = ramp[: area.shape[0]]
    ticks = axes.round_ticks(0, high, 4)
    for tick in ticks:
        y = top + (1 - tick / high) * (height - 1)
        text = axes.tick_text(tick, ticks)
        draw_text(paper, text, (x + 14, y - line_height(SIZE) / 2), SIZE, FAINT)
