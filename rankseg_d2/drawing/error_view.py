"""Where a prediction is wrong, and which of its categories are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .colors import IGNORED, MISSED, PAPER, WRONG, class_colors
from .painting import check_map, paint_by, positions
from .panels import Row


class WrongCategories(NamedTuple):
    """Class ids: predicted but not in the ground truth, and in it but not predicted."""

    false: list[int]
    missed: list[int]


def error_view(
    truth: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    colors: np.ndarray | Sequence | None = None,
    ignore: int | None = None,
) -> np.ndarray:
    """Right pixels are white, wrong ones have the predicted class's colour: (H, W, 3) uint8.

    Ignored pixels, and those whose ground truth is no class, are grey; where no class is predicted,
    black.
    """
    truth, predicted = _both(truth, predicted, len(names), ignore)
    count = len(names)
    table = np.concatenate(  # 0: no class; from 1, the classes
        [np.zeros((1, 3), np.uint8), class_colors(names, colors), [PAPER, IGNORED]]
    ).astype(np.uint8)
    index = predicted.astype(np.int32)
    index[predicted == truth] = count + 1
    index[truth == 0] = count + 2
    return paint_by(index, table)


def wrong_categories(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore: int | None = None
) -> WrongCategories:
    """The false and the missed categories, the largest first; ignored pixels do not count."""
    truth, predicted = _both(truth, predicted, num_classes, ignore)
    valid = truth > 0
    in_truth = np.bincount(truth[valid], minlength=num_classes + 1)
    in_predicted = np.bincount(predicted[valid], minlength=num_classes + 1)
    in_predicted[0] = 0
    return WrongCategories(
        _by_area(in_predicted * (in_truth == 0)), _by_area(in_truth * (in_predicted == 0))
    )


def error_rows(
    wrong: WrongCategories, names: Sequence[str], colors: np.ndarray | Sequence | None = None
) -> list[Row]:
    """The lines of `draw_list` beside an error view: the false ones in red, then the missed."""
    colors = class_colors(names, colors)
    false = [Row(names[i], color=colors[i], ink=WRONG) for i in wrong.false]
    missed = [Row(f"missed: {names[i]}", color=colors[i], ink=MISSED) for i in wrong.missed]
    return false + missed


def _both(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both maps with class id + 1, and 0 for no class."""
    check_map(truth, np.shape(predicted), "the ground truth")
    check_map(predicted, truth.shape, "the prediction")
    classes = np.arange(num_classes)
    known = positions(truth, classes)
    if ignore is not None and 0 <= ignore < num_classes:
        known[truth == ignore] = 0
    return known, positions(predicted, classes)


def _by_area(areas: np.ndarray) -> list[int]:
    order = np.argsort(-areas, kind="stable")
    return [int(number) - 1 for number in order if areas[number]]
