"""Panoptic quality (PQ) of images from overlaps of segments, by panopticapi's rules."""

from typing import NamedTuple

import numpy as np

from .overlap import joint_runs, overlap_table, positions

VOID = 0  # segment id of pixels without a segment


class Segments(NamedTuple):
    """The n segments of an image, by ascending id."""

    ids: np.ndarray  # (n,) in the map of segment ids, not 0
    classes: np.ndarray  # (n,)
    areas: np.ndarray  # (n,) from the json; NaN: count the pixels
    is_crowd: np.ndarray  # (n,) bool
    order: np.ndarray  # (n,) index in the json

    @classmethod
    def of(cls, infos: list[dict], classes: list[int]) -> "Segments":
        """From dicts with `id` and, for ground truth, `area` and `iscrowd`."""
        ids = np.array([info["id"] for info in infos], np.int64)
        order = ids.argsort(kind="stable")
        areas = np.array([info.get("area", np.nan) for info in infos], np.float64)
        is_crowd = np.array([info.get("iscrowd", 0) == 1 for info in infos], bool)
        classes = np.array(classes, np.intp)
        return cls(ids[order], classes[order], areas[order], is_crowd[order], order)


class Counts(NamedTuple):
    """Sums over images, one for each class: (C,) each."""

    iou: np.ndarray  # sum over the matches
    matched: np.ndarray  # TP
    wrong: np.ndarray  # FP
    missed: np.ndarray  # FN

    @classmethod
    def zero(cls, num_classes: int) -> "Counts":
        return cls(np.zeros(num_classes), *np.zeros((3, num_classes), np.int64))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + two for one, two in zip(self, other, strict=True)))


def overlaps(
    true_map: np.ndarray, true_ids: np.ndarray, predicted_map: np.ndarray, predicted_ids: np.ndarray
) -> np.ndarray:
    """Pixels that true and predicted segments share: (n+1, m+1) int64, void last.

    The ids ascend. Raises ValueError if a map has an id that is neither among its ids nor void.
    """
    true, predicted, lengths = joint_runs(true_map, predicted_map)
    rows, columns = positions(true, true_ids), positions(predicted, predicted_ids)
    _check_ids(true, rows == len(true_ids), "the ground truth")
    _check_ids(predicted, columns == len(predicted_ids), "the prediction")
    shape = (len(true_ids) + 1, len(predicted_ids) + 1)
    return overlap_table(rows, columns, lengths, shape)


def _check_ids(ids: np.ndarray, is_unknown: np.ndarray, whose: str) -> None:
    unknown = np.unique(ids[is_unknown & (ids != VOID)])
    if len(unknown):
        raise ValueError(
            f"the map of {whose} has {len(unknown)} segment ids that its segments_info lacks: "
            f"{', '.join(map(str, unknown[:5]))}"
        )


def count_matches(
    true: Segments, predicted: Segments, table: np.ndarray, num_classes: int
) -> Counts:
    """The image's counts, from the overlaps (n+1, m+1)."""
    common, void = table[:-1, :-1], table[-1, :-1]  # (n, m), (m,)
    predicted_areas = table[:, :-1].sum(0)
    iou = segment_ious(true, predicted, table)
    iou[true.classes[:, None] != predicted.classes] = 0
    is_match = iou > 0.5
    rows, columns = is_match.nonzero()

    missed = ~is_match.any(1) & ~true.is_crowd
    excused = void + _crowd_overlap(true, predicted, common, num_classes)
    wrong = ~is_match.any(0) & (excused / predicted_areas <= 0.5)

    def per_class(classes, weights=None):
        return np.bincount(classes, weights, num_classes)

    return Counts(
        per_class(true.classes[rows], iou[rows, columns]),
        per_class(true.classes[rows]),
        per_class(predicted.classes[wrong]),
        per_class(true.classes[missed]),
    )


def segment_ious(true: Segments, predicted: Segments, table: np.ndarray) -> np.ndarray:
    """IoU of each pair of segments, of any classes: (n, m); 0 with crowds. Void does not count."""
    common, void = table[:-1, :-1], table[-1, :-1]  # (n, m), (m,)
    true_areas = np.where(np.isnan(true.areas), table[:-1].sum(1), true.areas)
    union = table[:, :-1].sum(0) + true_areas[:, None] - common - void
    comparable = (common > 0) & ~true.is_crowd[:, None]
    return np.divide(common, union, out=np.zeros(common.shape), where=comparable)


def _crowd_overlap(
    true: Segments, predicted: Segments, common: np.ndarray, num_classes: int
) -> np.ndarray | int:
    """Pixels of each predicted segment in the crowd of its class: (m,), or 0 without crowds.

    Of several crowds of a class, only the last one in the json counts.
    """
    crowds = true.is_crowd.nonzero()[0]
    if not len(crowds):
        return 0
    crowds = crowds[true.order[crowds].argsort()]
    crowd_of = np.full(num_classes, len(true.ids))
    crowd_of[true.classes[crowds]] = crowds  # the last one stays
    padded = np.pad(common, ((0, 1), (0, 0)))  # (n+1, m): no crowd, no pixels
    return padded[crowd_of[predicted.classes], np.arange(len(predicted.ids))]


def quality(counts: Counts) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ of each class in [0, 1]; NaN if no ground truth or prediction has it."""
    sizes = counts.matched + (counts.wrong + counts.missed) / 2
    with np.errstate(invalid="ignore"):
        found = counts.matched / sizes
        # SQ times RQ would round differently.
        panoptic = counts.iou / sizes
    segmentation = np.where(sizes > 0, counts.iou / counts.matched.clip(1), np.nan)
    return {"PQ": panoptic, "SQ": segmentation, "RQ": found}


def mean_quality(classes: dict[str, np.ndarray], among: np.ndarray) -> dict[str, float]:
    """Means in percent over the classes of `among` (C,) bool that occur, and their number."""
    among = among & ~np.isnan(classes["PQ"])
    means = {
        name: 100 * float(values[among].mean()) if among.any() else float("nan")
        for name, values in classes.items()
    }
    return means | {"classes": int(among.sum())}
