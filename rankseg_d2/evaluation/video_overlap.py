"""Overlaps of the objects of a video, over all of its frames."""

from typing import NamedTuple

import numpy as np

from ..data.formats import rle
from ..ops.rle import rle_overlaps, why_not

# The T masks of an object: compressed RLEs, None in frames where it is absent
MaskTrack = list[dict | None]


class Overlaps(NamedTuple):
    """Pixels of N objects, of M others, and the pixels that they share."""

    first: np.ndarray  # (N, T)
    second: np.ndarray  # (M, T)
    common: np.ndarray  # (N, M), all frames together; 0 for pairs that are not wanted

    def iou(self) -> np.ndarray:
        """Intersection over union, each summed over the frames: (N, M)."""
        total = self.first.sum(1)[:, None] + self.second.sum(1)
        return self.common / np.maximum(total - self.common, 1)


def track_overlaps(
    first: list[MaskTrack], second: list[MaskTrack], wanted: np.ndarray, length: int
) -> Overlaps:
    """Overlaps of N and M objects in a video of `length` frames, for the `wanted` pairs (N, M).

    The compiled op computes them or, where it is not built, pycocotools: the same numbers.
    """
    compute = _by_pycocotools if why_not() else _by_compiled_op
    return compute(first, second, wanted, length)


def _by_compiled_op(
    first: list[MaskTrack], second: list[MaskTrack], wanted: np.ndarray, length: int
) -> Overlaps:
    codes: dict[bytes | str, int] = {}  # detections of one query share their masks
    numbers = [
        -1 if mask is None else codes.setdefault(mask["counts"], len(codes))
        for track in (*first, *second)
        for mask in track
    ]
    numbers = np.array(numbers, int).reshape(-1, length)  # (N+M, T)
    i, j = np.nonzero(wanted)
    pairs = np.stack([numbers[i], numbers[len(first) + j]], 2)  # (P, T, 2)
    both = (pairs >= 0).all(2)
    sizes, shared = rle_overlaps(list(codes), pairs[both])
    areas = np.append(sizes, 0)[numbers]  # -1: the last one
    common = np.zeros(wanted.shape)
    common[i, j] = np.bincount(np.nonzero(both)[0], shared, minlength=len(i))
    return Overlaps(areas[: len(first)], areas[len(first) :], common)


def _by_pycocotools(
    first: list[MaskTrack], second: list[MaskTrack], wanted: np.ndarray, length: int
) -> Overlaps:
    areas = _pixels(first, length), _pixels(second, length)
    common = np.zeros(wanted.shape)
    for frame in range(length):
        some = np.flatnonzero(wanted.any(1) & (areas[0][:, frame] > 0))
        others = np.flatnonzero(wanted.any(0) & (areas[1][:, frame] > 0))
        if len(some) and len(others):
            masks, regions = [first[i][frame] for i in some], [second[i][frame] for i in others]
            shares = rle.shares(masks, regions)  # (n, m)
            common[np.ix_(some, others)] += np.rint(shares * areas[0][some, frame, None])
    return Overlaps(*areas, common * wanted)


def _pixels(tracks: list[MaskTrack], length: int) -> np.ndarray:
    """Pixels of N objects in each of T frames: (N, T)."""
    masks = [mask for track in tracks for mask in track]
    areas = np.zeros(len(masks))
    areas[[mask is not None for mask in masks]] = rle.areas(
        [mask for mask in masks if mask is not None]
    )
    return areas.reshape(len(tracks), length)


def mean_area(pixels: np.ndarray) -> np.ndarray:
    """Mean area of N objects over the frames where they have a pixel: (N, T) -> (N,)."""
    return pixels.sum(1) / np.count_nonzero(pixels, axis=1).clip(1)
