"""Lists show their rows in order and in their colours; sheets scale pictures into cells."""

import numpy as np
import pytest

from rankseg_d2.drawing import CELL, GAP, Row, beside, draw_list, fit_into, lines_in, sheet
from rankseg_d2.drawing.colors import FAINT, INK, MISSED, RIGHT, WRONG
from rankseg_d2.drawing.text import line_height


def picture(height, width, color):
    return np.full((height, width, 3), color, np.uint8)


def lines_of(panel):
    """The number of text lines: runs of rows with dark or coloured pixels."""
    used = (panel.min(-1) < 160).any(1)
    return int((used[1:] & ~used[:-1]).sum() + used[0])


@pytest.mark.parametrize(
    ("kept", "present", "color"),
    [
        (True, None, INK), (False, None, FAINT), (True, True, RIGHT), (True, False, WRONG),
        (False, True, MISSED), (False, False, FAINT),
    ],
)  # fmt: skip
def test_the_colour_of_a_name_says_what_it_is(kept, present, color):
    panel = draw_list([Row("HHHH", kept=kept, present=present)], size=40)
    values, counts = np.unique(panel.reshape(-1, 3), axis=0, return_counts=True)
    assert tuple(values[np.argsort(-counts)[1]]) == tuple(color)  # after the paper's


def test_the_list_is_as_large_as_its_rows_need():
    rows = [Row(name, score=0.5) for name in ["wall", "a longer name", "sky"]]
    assert lines_of(draw_list(rows)) == 3
    assert (
        draw_list([*rows, Row("much longer than all the others")]).shape[1]
        > draw_list(rows).shape[1]
    )
    assert len(draw_list(rows, title="title")) == len(draw_list(rows)) + len(
        draw_list(rows[:2])
    ) - len(draw_list(rows[:1]))
    assert draw_list([]).ndim == 3


def test_rows_that_do_not_fit_are_counted():
    rows = [Row(f"row {i}") for i in range(30)]
    for height in (30, 100, 240, 400):
        panel = draw_list(rows, height=height, width=120)
        assert panel.shape == (height, 120, 3)
        assert lines_of(panel) == lines_in(height)
    last = draw_list(
        [*rows[: lines_in(100) - 1], Row("and 27 more", kept=False)], height=100, width=120
    )
    assert lines_in(100) == 4
    assert np.array_equal(draw_list(rows, height=100, width=120), last)


def test_the_bar_is_as_long_as_the_probability():
    def bar(score):
        panel = draw_list([Row("", score=score, ink=(0, 0, 200))], width=300).astype(int)
        return ((panel[..., 2] - panel[..., 0] > 60) & (panel[..., 2] > 210)).sum(1).max()

    whole = bar(1.0)
    assert whole > 30
    for score in (0.25, 0.5, 0.8):
        assert abs(bar(score) - score * whole) <= 1
    assert bar(0.0) == bar(float("nan")) == 0
    assert bar(7.0) == whole


def test_a_line_parts_the_kept_from_the_others():
    rows = [Row("a", kept=True), Row("b", kept=True), Row("c", kept=False)]
    panel = draw_list(rows, width=200)
    ruled = (panel[:, 150:190] < 255).all((1, 2))
    assert ruled.sum() == 1
    assert not (draw_list(rows[:2], width=200)[:, 150:190] < 255).any()


def test_a_panel_stands_beside_the_picture():
    small, high = picture(4, 6, (1, 2, 3)), picture(9, 5, (7, 8, 9))
    both = beside(small, high, gap=2)
    assert both.shape == (9, 13, 3)
    assert np.array_equal(both[:4, :6], small)
    assert np.array_equal(both[:, 8:], high)
    assert (both[4:, :6] == 255).all()
    assert (both[:, 6:8] == 255).all()
    assert beside(high[..., 0], small).shape == (9, 5 + GAP + 6, 3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 3), (240, 320), (1080, 1920), (17, 23)])
def test_a_cell_shows_all_of_a_picture_in_its_middle(shape):
    cell = fit_into(picture(*shape, (9, 99, 199)), *CELL)
    assert cell.shape == (*CELL, 3)
    rows, columns = np.nonzero((cell == (9, 99, 199)).all(-1))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height == CELL[0] or width == CELL[1]
    assert abs(height - width * shape[0] / shape[1]) <= max(1, shape[0] / shape[1])
    assert abs(rows.min() - (CELL[0] - 1 - rows.max())) <= 1
    assert abs(columns.min() - (CELL[1] - 1 - columns.max())) <= 1


def test_enlarged_pictures_have_no_new_colours():
    random = np.random.default_rng(0)
    small = random.choice([10, 250], (7, 9, 1)).astype(np.uint8).repeat(3, 2)
    assert set(np.unique(fit_into(small, 100, 120)).tolist()) == {10, 250, 255}


def test_a_sheet_has_a_cell_for_each_picture():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    rows = [[picture(5, 5, colors[0]), picture(50, 20, colors[1])], [picture(8, 8, colors[2])]]
    paper = sheet(rows, ["image", "prediction"], cell=(30, 40))
    head = line_height(13)
    assert paper.shape == (head + 2 * (30 + GAP), 2 * (40 + GAP), 3)
    assert paper[head + 15, 20].tolist() == list(colors[0])
    assert paper[head + 15, 40 + GAP + 20].tolist() == list(colors[1])
    assert paper[head + 30 + GAP + 15, 20].tolist() == list(colors[2])
    assert (paper[head + 30 + GAP :, 40 + GAP :] == 255).all()  # the empty cell


def test_empty_sheets():
    assert sheet([], []).size
    assert sheet([], ["a", "b"]).shape[1] == 2 * (CELL[1] + GAP)
    assert (sheet([[]], []) == 255).all()
