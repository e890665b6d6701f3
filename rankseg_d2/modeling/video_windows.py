"""Inference of whole videos: window by window, in memory that does not grow with the length.

A window is a clip of consecutive frames, which shares some with the next one. What belongs to the
video is put together as the windows come: the scores of the categories, and which objects of two
windows are the same. With one window nothing is put together, and the results are the clip's.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import unknown_name
from ..ranking import Ranking
from .clips import output_size, places
from .inference import ResultOptions, detect
from .labels import present_labels
from .results import Classes, Shape, classify, hard_masks, semantic
from .transformer_decoder import Predictions
from .video_linking import Found, Tracks
from .video_results import LabelMaps, encode

RANKINGS = ("running", "two_pass")


@dataclass(frozen=True)
class VideoWindows:
    """How a video is cut into windows, and how these become one again: TEST.VIDEO."""

    window: int  # frames
    overlap: int = 4  # frames
    ranking: str = "running"
    link_threshold: float = 0.5
    link_patience: int = 3  # windows

    @classmethod
    def from_config(cls, cfg) -> "VideoWindows | None":
        """None where videos are taken as a whole."""
        options = cfg.TEST.VIDEO
        if options.WINDOW == 0:
            return None
        test = cfg.MODEL.MASK_FORMER.TEST
        if test.PANOPTIC_ON or not (test.SEMANTIC_ON or test.INSTANCE_ON):
            raise ValueError(
                "TEST.VIDEO.WINDOW is for semantic and instance results: set MODEL.MASK_FORMER.TEST."
                "PANOPTIC_ON False and SEMANTIC_ON or INSTANCE_ON True, or WINDOW 0 to take videos "
                "as a whole"
            )
        return cls(
            options.WINDOW,
            options.OVERLAP,
            options.RANKING,
            options.LINK_THRESHOLD,
            options.LINK_PATIENCE,
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


def segment_video(model: nn.Module, sample: dict, options: VideoWindows) -> dict:
    """The results of a video of any length, as docs/video.md has them."""
    with torch.no_grad():
        return Video(model, sample, options).segment()


class Window(NamedTuple):
    """Frames of the video."""

    seen: slice  # what the network sees together
    own: slice  # those of them whose results are this window's

    @property
    def num_own(self) -> int:
        return self.own.stop - self.own.start


class Video:
    """One video on its way through a model."""

    def __init__(self, model: nn.Module, sample: dict, options: VideoWindows):
        self.model, self.results = model, model.results
        num_frames = len(sample["image"])
        if not num_frames:
            raise ValueError(f"{video_name(sample)} has no frames; leave it out of the data set")
        if model.uses_oracle:  # what is in the whole video, read once
            sample = sample | {"present_classes": present_labels(sample)}
        self.sample = sample
        self.windows = plan(num_frames, options.window, options.overlap)
        # The oracle's ranking is the video's from the first window on.
        self.ranks_first = options.ranking == "two_pass" and hasattr(model, "ml_head")
        self.scores = VideoScores()
        self.labels = LabelMaps(model.num_classes)
        self.tracks = Tracks(
            options.link_threshold, options.link_patience, 2 * self.results.detections_per_video
        )

    def segment(self) -> dict:
        """All windows, once or twice, and what they are together."""
        if self.ranks_first and len(self.windows) > 1:
            self.each_window(self.add_scores)
            self.each_window(self.add_results)
        else:
            self.each_window(self.add_scores, self.add_results)
        with torch.autocast(self.model.device.type, enabled=False):
            return self.result()

    def each_window(self, *steps: Callable) -> None:
        """Call step(number of the window, its predictions, sizes), each step in turn."""
        for number, frames in enumerate(read(self.sample["image"], self.windows)):
            self.look(number, frames, steps)

    def look(self, number: int, frames: list[Tensor], steps: tuple[Callable, ...]) -> None:
        """What a window predicts is forgotten before the next one is looked at."""
        clips = self.model.preprocess([self.sample | {"image": frames}])
        outputs = self.model.predict(clips.tensor, clips.num_frames, clips.present)
        size = clips.sizes[0]
        shape = Shape(clips.padded_size, size, output_size(self.sample, size))
        for step in steps:
            step(number, outputs, shape)

    def add_scores(self, number: int, outputs: Predictions, shape: Shape) -> None:
        if outputs.ranking is not None:
            self.scores.add(outputs.ranking.scores, self.windows[number].num_own)

    def add_results(self, number: int, outputs: Predictions, shape: Shape) -> None:
        if outputs.ranking is not None:  # the window's own: let it be the video's
            outputs = self.model.decide(replace(outputs, ranking=self.ranking()))
        with torch.autocast(outputs.logits.device.type, enabled=False):
            classes = classify(outputs.logits[0], outputs.ranking)
            masks = outputs.masks[-1][0]  # (Q, T, h, w)
            if self.results.semantic:
                self.add_labels(number, classes, masks, shape)
            if self.results.instance:
                self.add_objects(number, classes, masks, outputs.queries[-1, 0], shape)

    def ranking(self) -> Ranking:
        """By all windows so far."""
        return self.model.rank(self.scores.logits())

    def own_frames(self, number: int, masks: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The frames whose results are this window's, and their masks (Q, 1, h, w)."""
        seen, own = self.windows[number]
        for frame in range(own.start, own.stop):
            yield frame, masks[:, frame - seen.start, None]

    def add_labels(self, number: int, classes: Classes, masks: Tensor, shape: Shape) -> None:
        for frame, maps in self.own_frames(number, masks):
            _, labels = semantic(classes, maps, shape, self.results.resize_first)
            self.labels.append(labels[0].cpu().numpy())
            for sink in self.model.label_sinks:
                sink(self.sample, frame, self.labels[frame])

    def add_objects(
        self, number: int, classes: Classes, masks: Tensor, queries: Tensor, shape: Shape
    ) -> None:
        chosen = self.objects(classes)  # (M,)
        insides = masks[chosen] > 0  # (M, T, h, w)
        before, after = shared_frames(self.windows, number)
        found = Found(
            queries[chosen],
            classes.probabilities[chosen, :-1].amax(1) if len(classes.ids) else chosen.new_zeros(0),
            insides[:, before].flatten(1),
            insides[:, after].flatten(1),
            self.windows[number].num_own,
        )
        tracks = self.tracks.link(found)
        for frame, maps in self.own_frames(number, masks):
            rles = encode(hard_masks(maps, chosen, shape)[0][:, 0]) if tracks else []
            for track, rle in zip(tracks, rles, strict=True):
                if rle is not None:
                    track.masks[frame] = rle

    def objects(self, classes: Classes) -> Tensor:
        """The queries that may be objects: the best detections, or rather something than nothing.

        Without the former a video of one window would have other results than the clip.
        """
        best = detect(classes, self.results.detections_per_video, self.results)[1]
        likely = classes.probabilities.argmax(1) < len(classes.ids)  # (Q,)
        return likely.index_fill(0, best, True).nonzero().flatten()
