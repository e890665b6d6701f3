"""Which object of a window is which object of the video: tracks over windows.

An object looks the same in the next window (cosine of its query features), and it is at the same
place in the frames that both windows see (IoU of its masks there, over all these frames together).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Found(NamedTuple):
    """M objects of one window; P pixels are all those of the frames that two windows share."""

    queries: Tensor  # (M, D)
    scores: list[float]  # M, of their best category
    heads: Tensor  # (M, P) bool, their masks in the frames that the window before sees too
    tails: Tensor  # (M, P') bool, the same with the window after
    num_frames: int  # how much of the video the window stands for


@dataclass(eq=False)
class Track:
    """An object of the video, by what the windows know of it."""

    queries: list[Tensor] = field(default_factory=list)  # (D,) of each window that found it
    weights: list[int] = field(default_factory=list)  # frames of these windows
    score: float = 0.0  # mean over these frames
    masks: dict[int, tuple] = field(default_factory=dict)  # by frame: where its RLE is stored
    last: int = 0  # the last window that found it
    row: int = 0  # which of that window's objects it was

    def extend(self, found: Found, i: int, window: int) -> None:
        """Take in object i of a window."""
        self.queries.append(found.queries[i].clone())  # no view that holds all the others
        self.weights.append(found.num_frames)
        share = found.num_frames / sum(self.weights)
        self.score += share * (found.scores[i] - self.score)
        self.last, self.row = window, i


class Tracks:
    """The objects of a video, as far as its windows have been seen."""

    def __init__(self, threshold: float, patience: int, keep: int):
        """
        Args:
            threshold: objects that are less alike (see `likeness`) are not the same.
            patience: so many windows may miss an object before it counts as gone for good.
            keep: of the objects that are gone, so many with the best scores are kept.
        """
        self.threshold, self.patience, self.keep = threshold, patience, keep
        self.live, self.gone = [], []
        self.window = 0
        self.tails = None  # (M, P) bool, of the last window's objects

    @property
    def all(self) -> list[Track]:
        return self.gone + self.live

    def link(self, found: Found) -> list[Track]:
        """The tracks of the M objects of the next window; who resembles no known one is new."""
        self.window += 1
        self.retire()
        partners = dict(assign(self.likeness(found), self.threshold))
        numbers = [partners.get(i) for i in range(len(found.queries))]
        tracks = [Track() if number is None else self.live[number] for number in numbers]
        self.live += [track for track in tracks if not track.queries]
        for i, track in enumerate(tracks):
            track.extend(found, i, self.window)
        self.tails = found.tails
        return tracks

    def retire(self) -> None:
        """Give up the tracks that too many windows have missed."""
        is_gone = [self.window - track.last - 1 > self.patience for track in self.live]
        self.gone += [track for track, gone in zip(self.live, is_gone, strict=True) if gone]
        self.live = [track for track, gone in zip(self.live, is_gone, strict=True) if not gone]
        self.gone = sorted(self.gone, key=lambda track: -track.score)[: self.keep]

    def likeness(self, found: Found) -> Tensor:
        """Of the M objects of the next window to the N live tracks: (M, N)."""
        if not self.live:
            return found.queries.new_zeros(len(found.queries), 0)
        was_seen = [track.last == self.window - 1 for track in self.live]
        rows = [track.row for track, seen in zip(self.live, was_seen, strict=True) if seen]
        was_seen = torch.tensor(was_seen, device=found.heads.device)
        tails = found.heads.new_zeros(len(self.live), found.heads.shape[1])
        if rows:  # where the window before did not find an object, nobody knows it to be elsewhere
            tails[was_seen] = self.tails[rows]
        queries = torch.stack([track.queries[-1] for track in self.live])
        # An unknown IoU is on the threshold: it decides nothing, but a known good one goes before.
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
    """Pairs (row, column), each at most once, that are most alike in sum; all above the threshold.

    What counts is how far a pair is above the threshold, so that no good pair is given up for two
    that are not good enough.
    """
    from scipy.optimize import linear_sum_assignment

    gain = (likeness - threshold).clamp(min=0).cpu().numpy()
    pairs = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return [(int(row), int(column)) for row, column in pairs if gain[row, column] > 0]
