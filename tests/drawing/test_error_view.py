"""The error view: right, wrong, ignored, and which categories are false or missed."""

import numpy as np
import pytest

from rankseg_d2.drawing import error_rows, error_view, wrong_categories
from rankseg_d2.drawing.colors import IGNORED, MISSED, PAPER, WRONG

NAMES, COLORS = ["a", "b", "c"], np.array([(1, 2, 3), (40, 50, 60), (7, 80, 9)], np.uint8)


def test_each_pixel_has_the_colour_of_its_case():
    truth = np.array([[0, 1, 255, 2, 2, 9]], np.uint8)
    predicted = np.array([[0, 2, 1, 3, 255, 0]], np.int64)
    picture = error_view(truth, predicted, NAMES, COLORS, 255)
    expected = [PAPER, COLORS[2], IGNORED, (0, 0, 0), (0, 0, 0), IGNORED]
    assert picture[0].tolist() == np.array(expected).tolist()


def test_an_ignored_class_is_grey():
    truth, predicted = np.array([[0, 1]]), np.array([[0, 0]])
    picture = error_view(truth, predicted, NAMES, COLORS, ignore=0)
    assert picture[0].tolist() == [list(IGNORED), COLORS[0].tolist()]


def test_false_and_missed_categories_equal_sets():
    random = np.random.default_rng(0)
    for _ in range(30):
        truth, predicted = (random.choice([0, 1, 2, 3, 4, 5, 255], (2, 3)) for _ in range(2))
        wrong = wrong_categories(truth, predicted, 6, 255)
        valid = truth != 255
        there, seen = set(truth[valid].tolist()), set(predicted[valid].tolist()) - {255}
        assert set(wrong.false) == seen - there
        assert set(wrong.missed) == there - seen
        areas = [(predicted[valid] == number).sum() for number in wrong.false]
        assert areas == sorted(areas, reverse=True)


def test_the_list_names_the_false_in_red_and_then_the_missed():
    wrong = wrong_categories(np.array([[0, 0]]), np.array([[2, 1]]), 3)
    assert (wrong.false, wrong.missed) == ([1, 2], [0])
    rows = error_rows(wrong, NAMES, COLORS)
    assert [(row.name, row.ink) for row in rows] == [
        ("b", WRONG), ("c", WRONG), ("missed: a", MISSED)
    ]  # fmt: skip


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"the ground truth has size \(2, 2\)"):
        error_view(np.zeros((2, 2), int), np.zeros((2, 3), int), NAMES)
    with pytest.raises(ValueError, match="array of integers"):
        error_view(np.zeros((2, 2)), np.zeros((2, 2), int), NAMES)
