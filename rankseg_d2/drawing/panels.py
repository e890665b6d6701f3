"""What stands beside pictures: ranked lists and legends, and sheets of many pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .colors import FAINT, FRAME, INK, MISSED, PAPER, RIGHT, RULE, WRONG, mixed
from .painting import rgb
from .text import draw_text, fitting, line_height, text_width

CELL = (240, 320)  # height and width of the area for one picture of a sheet
GAP = 6


@dataclass(frozen=True)
class Row:
    """A line of a list.

    Attributes:
        name: of the category, or any text.
        color: of a square before the name, as a legend has it.
        score: a probability, in [0, 1] or NaN: a bar and a number.
        kept: whether it is among the top κ; names of others are faint.
        present: whether ground truth has it: present names are green, absent ones red, and those
            present but not kept orange. None: not known.
        ink: the colour of the name, in place of these.
    """

    name: str
    color: Sequence[int] | None = None
    score: float | None = None
    kept: bool = True
    present: bool | None = None
    ink: Sequence[int] | None = None

    def name_color(self) -> Sequence[int]:
        if self.ink is not None:
            return self.ink
        if self.present is not None:
            if self.kept:
                return RIGHT if self.present else WRONG
            if self.present:
                return MISSED
        return INK if self.kept else FAINT


def draw_list(
    rows: Sequence[Row],
    *,
    title: str = "",
    height: int | None = None,
    width: int | None = None,
    size: int = 13,
) -> np.ndarray:
    """A ranked list, a legend, or lines of text, as a panel on white: (height, width, 3).

    Args:
        height: by default, what the rows need; a smaller one ends with "and 7 more".
        width: by default, what the longest name needs.
        size: of the letters, in pixels.
    """
    line, edge = _line_and_edge(size)
    heads = bool(title)
    if height is None:
        height = (len(rows) + heads) * line + 2 * edge
    shown = _shown(rows, max(lines_in(height, size) - heads, 0))
    columns = _Columns.of(shown, title, width, size, edge)
    panel = np.full((max(height, 1), columns.width, 3), PAPER, np.uint8)
    y = min(edge, max(height - line, 0) // 2)
    if heads:
        text = fitting(title, size, columns.width - 2 * edge)
        draw_text(panel, text, (edge, y), size, INK if shown else FAINT)
        y += line
    for number, row in enumerate(shown):
        if number and shown[number - 1].kept and not row.kept:
            panel[y - 1 : y, edge : columns.width - edge] = FRAME  # where the top κ ends
        _draw_row(panel, row, y, columns, size)
        y += line
    return panel


def lines_in(height: int, size: int = 13) -> int:
    """The lines that a list of this height has place for, its title included."""
    line, edge = _line_and_edge(size)
    return max((height - edge) // line, 0)


def _line_and_edge(size: int) -> tuple[int, int]:
    return line_height(size) + max(size // 4, 1), size // 2


def _shown(rows: Sequence[Row], places: int) -> list[Row]:
    if len(rows) <= places:
        return list(rows)
    left_out = len(rows) - places + 1
    return [*rows[: places - 1], Row(f"and {left_out} more", kept=False)] if places else []


@dataclass(frozen=True)
class _Columns:
    """Where the parts of each row begin: the name, the bar, the number."""

    edge: int
    name: int
    bar: int
    number: int
    width: int

    @classmethod
    def of(
        cls, rows: Sequence[Row], title: str, width: int | None, size: int, edge: int
    ) -> "_Columns":
        has_scores = any(row.score is not None for row in rows)
        name = edge + (round(1.4 * size) if any(row.color is not None for row in rows) else 0)
        scores = round(6.6 * size) if has_scores else 0  # a gap, the bar, a gap, the number
        if width is None:
            names = max([text_width(row.name, size) for row in rows], default=0)
            width = max(name + names + scores + edge, text_width(title, size) + 2 * edge, 1)
        number = width - edge
        return cls(edge, name, max(width - edge - scores + size // 2, name), number, width)


def _draw_row(panel: np.ndarray, row: Row, y: int, columns: _Columns, size: int) -> None:
    line = line_height(size)
    middle = y + line // 2
    if row.color is not None:
        side = round(0.8 * size)
        top, left = middle - side // 2, columns.edge
        panel[max(top, 0) : max(top + side, 0), left : left + side] = row.color
    end = columns.bar - size // 2 if row.score is not None else columns.number
    ink = row.name_color()
    draw_text(panel, fitting(row.name, size, end - columns.name), (columns.name, y), size, ink)
    if row.score is None:
        return
    length = columns.number - columns.bar - round(2.6 * size)
    number = "–" if np.isnan(row.score) else f"{row.score:.2f}"
    draw_text(panel, number, (columns.number, y), size, INK if row.kept else FAINT, align=1)
    if length > 0:
        top, bottom = middle - max(line // 7, 1), middle + max(line // 7, 1)
        track = panel[max(top, 0) : max(bottom, 0), columns.bar : columns.bar + length]
        track[:] = RULE
        if row.score > 0:
            track[:, : max(round(length * min(row.score, 1)), 1)] = mixed(ink, PAPER, 0.35)


def beside(picture: np.ndarray, panel: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Both side by side at the top, as high as the higher one: (H, W, 3); the rest is white."""
    pictures = [rgb(picture), rgb(panel)]
    height = max(len(part) for part in pictures)
    width = sum(part.shape[1] for part in pictures) + gap
    paper = np.full((height, width, 3), PAPER, np.uint8)
    for part, x in zip(pictures, (0, pictures[0].shape[1] + gap), strict=True):
        paper[: part.shape[0], x : x + part.shape[1]] = part
    return paper


def fit_into(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture in the middle of a white cell, as large as fits: (height, width, 3)."""
    picture = rgb(picture)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    sides = [max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0])]
    way = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(picture, sides, interpolation=way)
    cell = np.full((height, width, 3), PAPER, np.uint8)
    y, x = (height - sides[1]) // 2, (width - sides[0]) // 2
    cell[y : y + sides[1], x : x + sides[0]] = resized
    return cell


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    cell: tuple[int, int] = CELL,
    size: int = 13,
) -> np.ndarray:
    """Rows of pictures of any size, scaled into cells below the titles: (H, W, 3) uint8.

    A cell is followed by a gap to the right and below. A short row ends with empty cells.
    """
    columns = max([len(titles), *map(len, rows)]) or 1
    head = line_height(size) if titles else 0
    high, wide = cell[0] + GAP, cell[1] + GAP
    paper = np.full((max(head + len(rows) * high, 1), columns * wide, 3), PAPER, np.uint8)
    for number, title in enumerate(titles):
        draw_text(paper, fitting(title, size, cell[1]), (number * wide + GAP, 0), size, INK)
    for y, pictures in enumerate(rows):
        for x, picture in enumerate(pictures):
            top, left = head + y * high, x * wide
            paper[top : top + cell[0], left : left + cell[1]] = fit_into(picture, *cell)
    return paper
