"""How a video is cut into windows: clips of consecutive frames, each sharing some with the next."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import Tensor

from ...errors import unknown_name
from ..clips import window_slices

RANKINGS = ("running", "two_pass")


@dataclass(frozen=True)
class VideoWindows:
    """Options of TEST.VIDEO: how a video is cut into windows, and how their results are joined."""

    window: int  # frames
    overlap: int = 4  # frames
    ranking: str = "running"
    link_threshold: float = 0.5
    link_patience: int = 3  # windows
    num_workers: int = 1  # threads that read frames ahead; 0: the calling thread reads them

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "VideoWindows | None":
        """None if videos run as a whole."""
        options = cfg.TEST.VIDEO
        if options.WINDOW == 0:
            return None
        test = cfg.MODEL.MASK_FORMER.TEST
        if test.PANOPTIC_ON or not (test.SEMANTIC_ON or test.INSTANCE_ON):
            raise ValueError(
                "TEST.VIDEO.WINDOW is for semantic and instance results: set MODEL.MASK_FORMER."
                "TEST.PANOPTIC_ON False and SEMANTIC_ON or INSTANCE_ON True, or "
                "TEST.VIDEO.WINDOW 0 to take videos as a whole"
            )
        return cls(
            options.WINDOW,
            options.OVERLAP,
            options.RANKING,
            options.LINK_THRESHOLD,
            options.LINK_PATIENCE,
            cfg.DATALOADER.NUM_WORKERS,
        )

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(
                "TEST.VIDEO.WINDOW is a number of frames, at least 1, or 0 to take videos as a "
                f"whole, but is {self.window}"
            )
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                "TEST.VIDEO.OVERLAP must be at least 0 and less than TEST.VIDEO.WINDOW, "
                f"{self.window}, but is {self.overlap}"
            )
        if self.ranking not in RANKINGS:
            raise unknown_name("TEST.VIDEO.RANKING", self.ranking, RANKINGS)
        if not 0 <= self.link_threshold <= 1:
            raise ValueError(
                f"TEST.VIDEO.LINK_THRESHOLD must be between 0 and 1, but is {self.link_threshold}"
            )
        if self.link_patience < 0:
            raise ValueError(
                "TEST.VIDEO.LINK_PATIENCE is a number of windows, at least 0, but is "
                f"{self.link_patience}"
            )


class Window(NamedTuple):
    """Frames of the video."""

    seen: slice  # input of the network
    own: slice  # those whose results are this window's

    @property
    def num_own(self) -> int:
        return self.own.stop - self.own.start


def plan(num_frames: int, size: int, overlap: int) -> list[Window]:
    """The windows of a video; the last one ends where the video ends.

    Of the frames that two windows share, each window has those nearer to its middle.
    """
    seen = window_slices(num_frames, size, size - overlap)
    cuts = [(a.stop + b.start + 1) // 2 for a, b in pairwise(seen)]
    own = pairwise([0, *cuts, num_frames])
    return [Window(frames, slice(*ends)) for frames, ends in zip(seen, own, strict=True)]


def shared_frames(windows: list[Window], number: int) -> tuple[slice, slice]:
    """The frames that a window shares with the one before, and with the one after."""
    start, stop = windows[number].seen.start, windows[number].seen.stop
    before = windows[number - 1].seen.stop if number else start
    after = windows[number + 1].seen.start if number + 1 < len(windows) else stop
    return slice(0, before - start), slice(after - start, stop - start)


def read(
    frames: Sequence[Tensor], windows: list[Window], num_workers: int
) -> Iterator[list[Tensor]]:
    """The frames of each window; each is read once, and held only while it is needed.

    Threads read the next window's frames while the caller works on this one's.
    """
    stops = [0, *(window.seen.stop for window in windows)]
    parts = [range(*ends) for ends in pairwise(stops)]
    held, first = [], 0
    for window, new in zip(windows, _read_parts(frames, parts, num_workers), strict=True):
        held = held[window.seen.start - first :] + new
        first = window.seen.start
        yield held


def _read_parts(
    frames: Sequence[Tensor], parts: list[range], num_workers: int
) -> Iterator[list[Tensor]]:
    """The frames of each part; with workers, those of one part are read ahead."""
    if num_workers == 0:
        yield from ([frames[i] for i in part] for part in parts)
        return
    with ThreadPoolExecutor(num_workers, "read ahead") as pool:
        upcoming = pool.map(frames.__getitem__, parts[0])
        for part in [*parts[1:], range(0)]:
            found = list(upcoming)
            upcoming = pool.map(frames.__getitem__, part)
            yield found
