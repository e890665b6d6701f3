"""Compare the persons of an image, part by part: MHP's AP^p and PCP, and CIHP's AP^r.

    MHP   https://github.com/ZhaoJ9014/Multi-Human-Parsing, folder Evaluation
    CIHP  https://github.com/Engineering-Course/CIHP_PGN, evaluation/test_inst_part_ap.py
"""

from typing import NamedTuple

import numpy as np

THRESHOLDS = np.arange(1, 10) / 10  # an overlap must be higher
AT_50 = 4  # the position of 0.5


class Persons(NamedTuple):
    """The predicted persons of an image, best first."""

    scores: np.ndarray  # (N,)
    hits: np.ndarray  # (N, 9) bool: the first one that finds its ground truth, by threshold
    correct: np.ndarray  # (N, 9): share of the parts of its ground truth that overlap enough
    num_true: int


class Regions(NamedTuple):
    """The predicted parts of an image, best first."""

    scores: np.ndarray  # (M,)
    classes: np.ndarray  # (M,)
    overlaps: np.ndarray  # (M, 9) bool: overlaps some ground truth enough
    hits: np.ndarray  # (M, 9) bool: is the first one that does
    num_true: np.ndarray  # (C,) parts of the ground truth


def compare_persons(
    predicted: np.ndarray, scores: np.ndarray, true: np.ndarray, num_classes: int
) -> Persons:
    """Part maps of persons (N, H, W) with scores (N,), and true ones (G, H, W), 0: none.

    The overlap of two persons is the mean IoU over the classes that either has, background too. A
    person is compared with the true one that it overlaps most.
    """
    order = np.argsort(-scores, kind="stable")
    count = len(order)
    best, overlap = np.full(count, -1), np.zeros(count)
    correct = np.zeros((count, len(THRESHOLDS)))
    counts = [np.bincount(one.ravel(), minlength=num_classes) for one in true]
    for row, index in enumerate(order if len(true) else ()):
        ious = _class_ious(predicted[index], true, counts, num_classes)  # (G, C)
        means = np.nanmean(ious, axis=1)
        best[row] = means.argmax()
        overlap[row] = means[best[row]]
        parts = np.count_nonzero(counts[best[row]][1:])
        found = (ious[best[row], 1:, None] > THRESHOLDS).sum(0)  # NaN is not higher
        correct[row] = found / max(parts, 1)
    enough = overlap[:, None] > THRESHOLDS
    return Persons(scores[order], _first(best, enough), correct, len(true))


def compare_regions(
    predicted: np.ndarray, scores: np.ndarray, true: np.ndarray, num_classes: int
) -> Regions:
    """The same persons with scores of their parts (N, C): each part of each person is a region.

    The regions of a prediction do not overlap, as in the published format: a pixel belongs to the
    first person that has a part there.
    """
    rows = []  # score, class, best overlap, number of its ground truth
    taken = np.zeros(predicted.shape[1:], bool)
    num_true = np.zeros(num_classes, np.int64)
    for one in true:
        num_true += np.bincount(one.ravel(), minlength=num_classes) > 0
    areas = [np.bincount(one.ravel(), minlength=num_classes) for one in true]
    for person, parts in enumerate(predicted):
        pixels = np.flatnonzero((parts > 0) & ~taken)
        taken.ravel()[pixels] = True
        values = parts.ravel()[pixels]
        area = np.bincount(values, minlength=num_classes)
        ious = np.zeros((len(true), num_classes))
        for i, one in enumerate(true):
            same = np.bincount(values[one.ravel()[pixels] == values], minlength=num_classes)
            ious[i] = same / np.maximum(area + areas[i] - same, 1)
        for part in np.flatnonzero(area).tolist():
            where = int(ious[:, part].argmax()) if len(true) else -1
            overlap = ious[where, part] if len(true) else 0.0
            rows.append((scores[person, part], part, overlap, where * num_classes + part))
    columns = np.array(rows, np.float64).reshape(-1, 4)
    columns = columns[np.argsort(-columns[:, 0], kind="stable")]
    enough = columns[:, 2, None] > THRESHOLDS
    hits = _first(columns[:, 3].astype(np.int64), enough)
    return Regions(columns[:, 0], columns[:, 1].astype(np.int64), enough, hits, num_true)


def _class_ious(
    predicted: np.ndarray, true: np.ndarray, counts: list[np.ndarray], num_classes: int
) -> np.ndarray:
    """IoU of each class, background too, with each true person: (G, C), NaN where none has it."""
    pixels = np.flatnonzero(predicted)
    values = predicted.ravel()[pixels]
    area = np.bincount(values, minlength=num_classes)
    area[0] = predicted.size - len(pixels)
    ious = np.empty((len(true), num_classes))
    for i, one in enumerate(true):
        others = one.ravel()[pixels]
        same = np.bincount(values[others == values], minlength=num_classes)
        same[0] = counts[i][0] - np.count_nonzero(others == 0)  # background in both
        union = area + counts[i] - same
        ious[i] = np.where(union > 0, same / np.maximum(union, 1), np.nan)
    return ious


def _first(target: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Of those that overlap enough (N, 9), the first one of each target (N,)."""
    hits = np.zeros_like(enough)
    for column in range(enough.shape[1]):
        rows = np.flatnonzero(enough[:, column])
        _, first = np.unique(target[rows], return_index=True)
        hits[rows[first], column] = True
    return hits


def average_precision(scores: np.ndarray, hits: np.ndarray, num_true: int) -> np.ndarray:
    """Area below the precision that never rises, of predictions (N,) by threshold: (9,).

    hits: (N, 9). NaN if there is no ground truth.
    """
    if not num_true:
        return np.full(hits.shape[1], np.nan)
    found = hits[np.argsort(-scores, kind="stable")].cumsum(0)  # (N, 9)
    recall = found / num_true
    precision = found / np.arange(1, len(found) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], 0)[::-1]
    steps = np.diff(recall, axis=0, prepend=0)
    return (steps * envelope).sum(0)
