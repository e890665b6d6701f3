"""Colours: fixed for a name, apart from each other and from black and white."""

import numpy as np
import pytest

from rankseg_d2.drawing import class_colors
from rankseg_d2.drawing.colors import spread_colors, tint

NAMES = [f"class {i}" for i in range(200)]


def test_a_class_keeps_its_colour_in_every_list():
    whole, part = class_colors(NAMES), class_colors(NAMES[150:20:-1])
    assert np.array_equal(whole[150:20:-1], part)
    # Written down, because pictures of other versions have them too.
    assert class_colors(["sky", "wall"]).tolist() == [[104, 142, 57], [211, 121, 151]]


def test_the_palette_is_taken_as_it_is():
    palette = [(10, 20, 30), (0, 255, 7)]
    assert class_colors(["a", "b"], palette).tolist() == [list(color) for color in palette]
    assert class_colors([], []).shape == class_colors([]).shape == (0, 3)


def test_changing_the_colours_of_one_call_does_not_change_the_next():
    first = class_colors(["a"])
    first[:] = 0
    assert class_colors(["a"]).any()


def test_colours_are_spread_and_neither_black_nor_white():
    colors = class_colors(NAMES).astype(int)
    luma = colors @ [0.299, 0.587, 0.114]
    assert luma.min() > 60
    assert luma.max() < 235
    assert np.ptp(colors, axis=1).min() > 25  # none is grey
    distances = np.abs(colors[:, None] - colors).sum(-1)
    assert (np.sort(distances, 1)[:, 1] > 0).mean() > 0.98
    assert np.median(distances) > 100
    strongest = np.bincount(colors.argmax(1), minlength=3)
    assert strongest.min() > 0.15 * len(NAMES)


@pytest.mark.parametrize("colors", [[(1, 2, 3)], [(1, 2), (3, 4)], [(1, 2, 300), (0, 0, 0)], "ab"])
def test_a_wrong_palette_is_named(colors):
    with pytest.raises(ValueError, match="each of the 2 names"):
        class_colors(["a", "b"], colors)


def test_tints_differ_and_the_first_is_the_class_colour():
    color = class_colors(["person"])[0]
    tints = [tuple(tint(color, number).tolist()) for number in range(10)]
    assert tints[0] == tuple(color.tolist())
    assert len(set(tints)) == 10
    assert tuple(tint(color, 10)) == tints[0]  # they repeat


def test_spread_colours_differ_more_than_tints():
    colors = spread_colors(30).astype(int)
    assert colors.shape == (30, 3) and spread_colors(0).shape == (0, 3)
    apart = np.abs(colors[:, None] - colors).sum(2) + 999 * np.eye(30, dtype=int)
    assert apart.min() > 20 and apart[:8, :8].min() > 60
