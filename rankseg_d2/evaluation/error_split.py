"""What mIoU and PQ lose to the ranking, to wrong classes, and to masks.

Ground truth replaces the prediction in three steps; what the metric gains by a step is what was
lost to it. So no part is negative, and the metric and the parts add up to 100.

1. ranking: pixels and segments of categories that were not kept. Nothing after the ranking could
   have found them.
2. classes: regions that lie mostly on one category, and have the name of another one.
3. masks: everything else, such as boundaries, and segments that are not outlined at all.
"""

import logging
from typing import NamedTuple

import numpy as np

from ..tables import text_table, write_tables
from .panoptic_quality import Counts, Segments, count_matches, quality, segment_ious

logger = logging.getLogger(__name__)

STEPS = ("ranking", "classes", "masks")
RIGHT, IGNORED = 0, 255  # of `Causes`; 1, 2 and 3 are the STEPS


class Causes(NamedTuple):
    """The n runs of pixels of an image in which nothing changes."""

    true: np.ndarray  # (n,) category in the ground truth
    predicted: np.ndarray  # (n,)
    lengths: np.ndarray  # (n,) pixels
    cause: np.ndarray  # (n,) RIGHT, IGNORED, or the number of the step that corrects it, from 1


def pixel_causes(
    true: np.ndarray,
    predicted: np.ndarray,
    kept: np.ndarray | None,
    num_classes: int,
    ignore: int,
) -> Causes:
    """Why pixels of a label map (H, W) are wrong; `kept` are the categories that the ranking kept.

    Args:
        predicted: (H, W), `num_classes` for no category.
        kept: (K,) categories; None for a model without ranking.
    """
    begins = _row_runs(predicted)
    runs = np.flatnonzero(begins)  # where the runs of the prediction begin
    both = begins.ravel().copy()
    both[1:] |= true.ravel()[1:] != true.ravel()[:-1]
    first = np.flatnonzero(both)  # those in which the ground truth does not change either
    lengths = np.diff(first, append=true.size)
    true, name = true.ravel()[first], predicted.ravel()[first]
    region = connected_regions(predicted, runs)[begins.ravel()[first].cumsum() - 1]
    known = true != ignore
    is_kept = np.ones(num_classes, bool)
    if kept is not None:
        is_kept[:] = False
        is_kept[kept] = True
    labels, weights = np.where(known, true, 0), np.where(known, lengths, 0)
    mostly = _main_categories(labels, region, weights, name)
    cause = np.full(len(true), 3, np.uint8)
    cause[(name < num_classes) & (mostly[region] == true)] = 2
    cause[~is_kept[labels]] = 1
    cause[true == name] = RIGHT
    cause[~known] = IGNORED
    return Causes(true, name, lengths, cause)


def connected_regions(labels: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The 4-connected region, from 0, of each run of a label map (H, W), which begin at `runs`."""
    from scipy.sparse import coo_matrix  # takes half a second, which a training need not wait for
    from scipy.sparse.csgraph import connected_components

    begins = _row_runs(labels)
    below = labels[1:] == labels[:-1]
    below[:, 1:] &= begins[1:, 1:] | begins[:-1, 1:]  # once for each pair of runs
    upper = np.flatnonzero(below)
    pairs = _run_of(upper, runs), _run_of(upper + labels.shape[1], runs)
    graph = coo_matrix((np.ones(len(upper), np.int8), pairs), (len(runs), len(runs)))
    return connected_components(graph, directed=False)[1]


def _row_runs(labels: np.ndarray) -> np.ndarray:
    """Where runs of a label begin in each row: (H, W) bool."""
    begins = np.ones(labels.shape, bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    return begins


def _run_of(pixels: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The number of the run that has each pixel, both by their place in the flat map."""
    return np.searchsorted(runs, pixels, "right") - 1


def _main_categories(
    true: np.ndarray, region: np.ndarray, lengths: np.ndarray, name: np.ndarray
) -> np.ndarray:
    """The category on which most of each region lies (R,).

    Of equal parts that of its own name, else the one that comes first.
    """
    base = int(true.max()) + 1
    keys, place, which = np.unique(
        region.astype(np.int64) * base + true, return_index=True, return_inverse=True
    )
    regions, categories = keys // base, keys % base
    sizes = 2 * np.bincount(which, lengths) + (categories == name[place])
    order = np.lexsort((-categories, sizes, regions))
    mostly = np.zeros(regions[-1] + 1, np.int64)
    mostly[regions[order]] = categories[order]  # the last, largest one of each region stays
    return mostly


class PixelSplit:
    """Sums over label maps, from which IoU and its parts follow."""

    def __init__(self, num_classes: int):
        # Pixels by cause, the right ones first: of each class in the ground truth, and predicted.
        self.true, self.predicted = np.zeros((2, 1 + len(STEPS), num_classes), np.int64)

    def add(self, causes: Causes) -> None:
        known = causes.cause != IGNORED
        cause, lengths = causes.cause[known].astype(np.intp), causes.lengths[known]
        number, count = self.true.shape
        for total, labels in ((self.true, causes.true), (self.predicted, causes.predicted)):
            keys = cause * (count + 1) + labels[known]
            found = np.bincount(keys, lengths, number * (count + 1)).reshape(number, count + 1)
            total += found[:, :count].astype(np.int64)

    def __add__(self, other: "PixelSplit") -> "PixelSplit":
        total = PixelSplit(self.true.shape[1])
        total.true = self.true + other.true
        total.predicted = self.predicted + other.predicted
        return total

    def values(self) -> np.ndarray:
        """IoU in percent, as predicted and after each step: (4, C), NaN without ground truth."""
        true, hits = self.true.sum(0), self.true.cumsum(0)[:-1]  # (C,), (3, C)
        wrong = self.predicted[::-1].cumsum(0)[::-1][1:]  # (3, C) of causes that are left
        with np.errstate(invalid="ignore"):
            iou = hits / (true + wrong)
        return _in_percent(iou, true > 0)


class SegmentSplit:
    """Counts over images, from which PQ and its parts follow."""

    def __init__(self, num_classes: int):
        self.counts = [Counts.zero(num_classes)] * len(STEPS)

    def add(self, counts: list[Counts]) -> None:
        """Counts of an image, as `segment_counts` gives them."""
        self.counts = [one + two for one, two in zip(self.counts, counts, strict=True)]

    def __add__(self, other: "SegmentSplit") -> "SegmentSplit":
        total = SegmentSplit(len(self.counts[0].iou))
        for part in (self, other):
            total.add(part.counts)
        return total

    def values(self) -> np.ndarray:
        """PQ in percent, as predicted and after each step: (4, C), NaN for absent classes.

        A class that is predicted only loses its false segments, and with them itself, by a step.
        """
        pq = np.stack([quality(one)["PQ"] for one in self.counts])
        exists = ~np.isnan(pq[0])
        return _in_percent(np.where(np.isnan(pq), 1, pq), exists)


def segment_counts(
    true: Segments,
    predicted: Segments,
    table: np.ndarray,
    is_kept: np.ndarray | None,
    num_classes: int,
) -> list[Counts]:
    """The counts of an image, as predicted and after the first two steps.

    Args:
        table: (n+1, m+1), the overlaps of true and predicted segments, void last.
        is_kept: (num_classes,) bool; None for a model without ranking.
    """
    stages = [count_matches(true, predicted, table, num_classes)]
    if is_kept is not None:
        predicted, table = _with_true(true, predicted, table, ~is_kept[true.classes])
    stages.append(count_matches(true, predicted, table, num_classes))
    rows, columns = (segment_ious(true, predicted, table) > 0.5).nonzero()
    classes = predicted.classes.copy()
    classes[columns] = true.classes[rows]
    renamed = predicted._replace(classes=classes)
    return [*stages, count_matches(true, renamed, table, num_classes)]


def _with_true(
    true: Segments, predicted: Segments, table: np.ndarray, chosen: np.ndarray
) -> tuple[Segments, np.ndarray]:
    """Prediction and overlaps after some true segments (n,) have been painted over it."""
    pixels = table[:-1].sum(1)
    matches = ~(pixels <= true.areas / 2)  # areas of the json may differ from the map
    rows = np.flatnonzero(chosen & ~true.is_crowd & (pixels > 0) & matches)
    if not len(rows):
        return predicted, table
    added = np.zeros((len(table), len(rows)), table.dtype)
    added[rows, np.arange(len(rows))] = pixels[rows]
    old = table.copy()
    old[rows] = 0
    left = np.flatnonzero(old[:, :-1].any(0))  # segments that still have pixels
    table = np.concatenate([old[:, left], added, old[:, -1:]], 1)
    number = table.shape[1] - 1
    classes = np.concatenate([predicted.classes[left], true.classes[rows]])
    blank = np.zeros(number)
    return Segments(np.arange(1, number + 1), classes, blank, blank > 0, np.arange(number)), table


def _in_percent(stages: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(3, C) in [0, 1], and the last step: (4, C) in percent, NaN outside of `among` (C,)."""
    stages = np.concatenate([stages, np.ones_like(stages[:1])])
    return np.where(among, 100 * stages, np.nan)


def write_split(
    folder: str | None, task: str, metric: str, values: np.ndarray, names: list[str]
) -> None:
    """Write TASK_errors.json and .csv, of all classes and of each one, and log the first.

    Args:
        values: (4, C) of each class, in percent, as predicted and after each step.
    """
    mean = _mean(values)
    parts = dict(zip(STEPS, np.diff(mean).tolist(), strict=True))
    metrics = {metric: float(mean[0])} | parts
    own, lost = metric.removeprefix("m"), np.diff(values, axis=0)  # (3, C)
    rows = [
        {"id": i, "class": name, own: float(values[0, i])}
        | dict(zip(STEPS, lost[:, i].tolist(), strict=True))
        for i, name in enumerate(names)
    ]
    write_tables(folder, f"{task}_errors", metrics, rows)
    logger.info("%s, and what it loses to each step\n%s", metric, text_table([metrics]))


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over the classes that are not NaN: (4, C) -> (4,)."""
    values = values[:, ~np.isnan(values[0])]
    return values.mean(1) if values.size else np.full(len(values), np.nan)
