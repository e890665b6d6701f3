"""Average precision and recall of video instances, by YouTube-VIS' rules, which are COCO's."""

from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU
_RECALLS = np.linspace(0, 1, 101)
_AT_MOST = 100  # detections of a category in a video
_RANGES = {"": (0, 1e5**2), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e5**2)}
LOW, HIGH = np.array(list(_RANGES.values())).T[..., None]  # (A, 1) each, both ends included


class Matches(NamedTuple):
    """The matches of D detections of a category in a video, best first, in A ranges of size."""

    scores: np.ndarray  # (D,)
    hit: np.ndarray  # (A, T, D) bool: has an object, at each of T thresholds
    ignored: np.ndarray  # (A, T, D) bool: is neither right nor wrong
    objects: np.ndarray  # (A,) number of objects to find


def match(
    scores: np.ndarray,
    areas: np.ndarray,
    overlaps: np.ndarray,
    true_areas: np.ndarray,
    crowd: np.ndarray,
) -> Matches:
    """Give each detection, best first, the free object with the highest IoU.

    Objects that count are preferred to those that do not: crowds, and objects whose size is out of
    the range. A crowd stays free. Of equal IoUs the last object wins.

    Args:
        scores, areas: (D,) of the detections.
        overlaps: (D, G) IoU with the true objects.
        true_areas, crowd: (G,) of the true objects.
    """
    order = np.argsort(-scores, kind="stable")[:_AT_MOST]
    scores, areas, overlaps = scores[order], areas[order], overlaps[order, ::-1]
    true_areas, crowd = true_areas[::-1], crowd[::-1]  # so that argmax takes the last
    not_counted = crowd | (true_areas < LOW) | (true_areas > HIGH)  # (A, G)
    outside = (areas < LOW) | (areas > HIGH)  # (A, D)
    hit = np.zeros((len(_RANGES), len(THRESHOLDS), len(scores)), bool)
    ignored = hit | outside[:, None]
    free = np.ones((*hit.shape[:2], len(crowd)), bool)  # (A, T, G)
    enough = overlaps[:, None] >= THRESHOLDS[:, None]  # (D, T, G)
    value = overlaps + 2.0 * ~not_counted[:, None]  # (A, D, G): above 2 where it counts
    for i in np.flatnonzero(enough.any((1, 2))):
        values = np.where(free & enough[i], value[:, i, None], 0)  # (A, T, G)
        best = values.max(2)
        hit[..., i] = found = best > 0
        ignored[..., i] = np.where(found, best <= 1, ignored[..., i])
        chosen = found[..., None] & (np.arange(len(crowd)) == values.argmax(2)[..., None])
        free &= ~chosen | crowd
    return Matches(scores, hit, ignored, np.count_nonzero(~not_counted, axis=1))


def category_metrics(matches: list[Matches]) -> dict[str, float]:
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10 of a category, in [0, 1]; NaN without objects.

    Args:
        matches: one per video, in the order of the videos, which decides between equal scores.
    """
    objects = sum((match.objects for match in matches), np.zeros(len(_RANGES), int))  # (A,)
    precision = _precisions(matches, objects)  # (A, T, R)
    metrics = {"AP": precision[0].mean(), "AP50": precision[0, 0].mean()}
    metrics["AP75"] = precision[0, 5].mean()
    metrics |= {f"AP{size}": precision[i].mean() for i, size in enumerate("sml", 1)}
    for count in (1, 10):
        found = sum((match.hit & ~match.ignored)[0, :, :count].sum() for match in matches)
        recall = found / len(THRESHOLDS) / objects[0] if objects[0] else np.nan
        metrics[f"AR{count}"] = recall
    return {name: float(value) for name, value in metrics.items()}


def _precisions(matches: list[Matches], objects: np.ndarray) -> np.ndarray:
    """Highest precision at each recall or above: (A, T, R); NaN for ranges without objects."""
    result = np.zeros((len(_RANGES), len(THRESHOLDS), len(_RECALLS)))
    result[objects == 0] = np.nan
    if not matches:
        return result
    scores = np.concatenate([match.scores for match in matches])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([match.hit for match in matches], 2)[..., order]
    counts = ~np.concatenate([match.ignored for match in matches], 2)[..., order]
    found = (hit & counts).cumsum(2)  # (A, T, D)
    precision = found / counts.cumsum(2).clip(1)
    for i in np.flatnonzero(objects):
        # Precision is highest at the detections that find one more object.
        threshold, index = np.nonzero(hit[i] & counts[i])
        best = np.zeros((len(THRESHOLDS), objects[i] + 1))  # by the number of objects found
        best[threshold, found[i, threshold, index]] = precision[i, threshold, index]
        best = np.maximum.accumulate(best[:, ::-1], 1)[:, ::-1]
        needed = np.searchsorted(np.arange(objects[i] + 1) / objects[i], _RECALLS)
        result[i] = best[:, needed]
    return result
