"""Tracks: the objects of the windows, linked over a whole video.

Objects of two windows are linked if they are alike. Two things count: the cosine of their query
features, and the IoU of their masks in the frames of both windows, over all these frames together.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Found(NamedTuple):
    """M objects of one window; P is the number of pixels in all frames that two windows share."""

    queries: Tensor  # (M, D)
    scores: list[float]  # M, of their best category
    heads: Tensor  # (M, P) bool, their masks in the frames shared with the window before
    tails: Tensor  # (M, P') bool, in those shared with the window after
    num_frames: int  # of the video whose results are this window's


@dataclass(eq=False)
class Track:
    """An object of the video, with what each window that found it knows."""

    queries: list[Tensor] = field(default_factory=list)  # (D,) of each window that found it
    weights: list[int] = field(default_factory=list)  # frames of these windows
    score: float = 0.0  # mean over these frames
    masks: dict[int, tuple] = field(default_factory=dict)  # by frame: where its RLE is stored
    last: int = 0  # the last window that found it
    row: int = 0  # which of that window's objects it was

    def extend(self, found: Found, i: int, window: int) -> None:
        """Take in object i of a window."""
        self.queries.append(found.queries[i].clone())  # a view would keep all the others in memory
        self.weights.append(found.num_frames)
        share = found.num_frames / sum(self.weights)
        self.score += share * (found.scores[i] - self.score)
        self.last, self.row = window, i


class Tracks:
    """The objects of a video in all windows so far."""

    def __init__(self, threshold: float, patience: int, keep: int):
        """
        Args:
            threshold: objects with a lower `likeness` are not linked.
            patience: a track is closed after more windows than this without a match.
            keep: how many closed tracks are kept, those with the best scores.
        """
        self.threshold, self.patience, self.keep = threshold, patience, keep
        self.open, self.closed = [], []
        self.window = 0
        self.tails = None  # (M, P) bool, of the last window's objects

    @property
    def all(self) -> list[Track]:
        return self.closed + self.open

    def link(self, found: Found) -> list[Track]:
        """The tracks of the M objects of the next window; an object without a match starts one."""
        self.window += 1
        self.close_old()
        partners = dict(assign(self.likeness(found), self.threshold))
        numbers = [partners.get(i) for i in range(len(found.queries))]
        tracks = [Track() if number is None else self.open[number] for number in numbers]
        self.open += [track for track in tracks if not track.queries]
        for i, track in enumerate(tracks):
            track.extend(found, i, self.window)
        self.tails = found.tails
        return tracks

    def close_old(self) -> None:
        """Close the tracks that too many windows have missed."""
        is_old = [self.window - track.last - 1 > self.patience for track in self.open]
        self.closed += [track for track, old in zip(self.open, is_old, strict=True) if old]
        self.open = [track for track, old in zip(self.open, is_old, strict=True) if not old]
        self.closed = sorted(self.closed, key=lambda track: -track.score)[: self.keep]

    def likeness(self, found: Found) -> Tensor:
        """The likeness of the M objects of the next window and the N open tracks: (M, N)."""
        if not self.open:
            return found.queries.new_zeros(len(found.queries), 0)
        was_seen = [track.last == self.window - 1 for track in self.open]
        rows = [track.row for track, seen in zip(self.open, was_seen, strict=True) if seen]
        was_seen = torch.tensor(was_seen, device=found.heads.device)
        tails = found.heads.new_zeros(len(self.open), found.heads.shape[1])
        if rows:  # a track that the window before did not find has no mask to compare
            tails[was_seen] = self.tails[rows]
        queries = torch.stack([track.queries[-1] for track in self.open])
        # An unknown IoU counts as the threshold, so that the cosine alone decides.
        return likeness(found.queries, queries, found.heads, tails, was_seen, self.threshold)


def likeness(
    queries: Tensor,
    others: Tensor,
    masks: Tensor,
    other_masks: Tensor,
    comparable: Tensor,
    unknown: float,
) -> Tensor:
    """The mean of the cosine of query features (M, D) and (N, D), and of the masks' IoU: (M, N).

    Masks (M, P) and (N, P) count where they are `comparable` (N,) and one of the two has a pixel;
    else their IoU is taken to be `unknown`.
    """
    cosine = F.normalize(queries.float(), dim=1) @ F.normalize(others.float(), dim=1).T
    masks, other_masks = masks.float(), other_masks.float()
    shared = masks @ other_masks.T
    union = masks.sum(1, keepdim=True) + other_masks.sum(1) - shared
    iou = (shared / union.clamp(min=1)).where(comparable & (union > 0), unknown)
    return (cosine + iou) / 2


def assign(likeness: Tensor, threshold: float) -> list[tuple[int, int]]:
    """Pairs (row, column) above the threshold with the highest total, each row and column once.

    The total adds up how far pairs are above the threshold, so that two pairs below it never
    displace one above it.
    """
    from scipy.optimize import linear_sum_assignment

    gain = (likeness - threshold).clamp(min=0).cpu().numpy()
    pairs = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return [(int(row), int(column)) for row, column in pairs if gain[row, column] > 0]
