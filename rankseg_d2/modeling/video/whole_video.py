"""Inference of whole videos: window by window, in memory that does not grow with the length.

Window by window the scores of the categories are added up, and the objects are linked. With one
window the results are those of the clip.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...ranking import Ranking
from ..oracle import present_labels
from ..outputs import MaskPredictions
from ..results import Sizes, ranking_result
from ..results.reading import encode_masks
from ..results.segments import Classes, binary_masks, class_probabilities, detect, semantic
from .linking import Found, Track, Tracks
from .store import CompressedLabelMaps, Store
from .windows import VideoWindows, plan, read, shared_frames


def predict_video(model: nn.Module, sample: dict, options: VideoWindows) -> dict:
    """The results of a video of any length; docs/video.md describes them."""
    return VideoRun(model, sample, options).predict()


class VideoRun:
    """The prediction of one video by a VideoMaskFormer, and its state from window to window."""

    def __init__(self, model: nn.Module, sample: dict, options: VideoWindows):
        self.model, self.results, self.ranker = model, model.result_options, model.ranker
        self.num_frames = len(sample["image"])
        if not self.num_frames:
            raise ValueError(f"{_video_name(sample)} has no frames; leave it out of the data set")
        has_oracle = self.ranker is not None and self.ranker.oracle
        if has_oracle:  # the categories of the whole video, read once
            sample = sample | {"present_classes": present_labels(sample, model.label_metadata)}
        self.sample = sample
        self.num_workers = options.num_workers
        self.windows = plan(self.num_frames, options.window, options.overlap)
        # The oracle knows the video's ranking at the first window, so one pass is enough.
        self.ranks_first = options.ranking == "two_pass" and self.ranker and not has_oracle
        self.scores = VideoScores()
        self.sizes: Sizes | None = None  # of a window
        self.classes: Classes | None = None  # of the last window's objects
        self.labels, self.rles = CompressedLabelMaps(model.num_classes), Store()
        self.tracks = Tracks(
            options.link_threshold, options.link_patience, 2 * self.results.detections_per_video
        )

    def predict(self) -> dict:
        """Run all windows, once or twice, and join their results."""
        if self.ranks_first and len(self.windows) > 1:
            self.each_window(self.add_scores)
            self.each_window(self.add_results)
        else:
            self.each_window(self.add_scores, self.add_results)
        return self.result()

    def each_window(self, *steps: Callable) -> None:
        """Call step(number of the window, its outputs) for each, one after the other."""
        for number, frames in enumerate(read(self.sample["image"], self.windows, self.num_workers)):
            self.run_window(number, frames, steps)

    def run_window(self, number: int, frames: list[Tensor], steps: tuple[Callable, ...]) -> None:
        """Run one window; its outputs are freed before the next one runs."""
        samples = [self.sample | {"image": frames}]
        clips = self.model.preprocess(samples)
        outputs = self.model.run_network(clips)
        self.sizes = clips.result_sizes(samples)[0]
        for step in steps:
            step(number, outputs)

    def add_scores(self, number: int, outputs: MaskPredictions) -> None:
        if outputs.scores is not None:
            self.scores.add(outputs.scores, self.windows[number].num_own)

    def add_results(self, number: int, outputs: MaskPredictions) -> None:
        outputs = self.model.decide(outputs.ranked(self.ranking()))
        with torch.autocast(outputs.logits.device.type, enabled=False):
            excluded = self.results.excluded
            classes = class_probabilities(outputs.logits[-1, 0], outputs.ranking, excluded)
            masks = outputs.masks[-1][0]  # (Q, T, h, w)
            if self.results.semantic:
                self.add_labels(number, classes, masks)
            if self.results.instance:
                self.add_objects(number, classes, masks, outputs.queries[-1, 0])

    def ranking(self) -> Ranking | None:
        """The ranking by all windows so far."""
        if self.ranker is None or self.scores.votes is None:
            return None
        # The oracle's scores are labels, the same in all windows, not logits to average.
        return self.ranker.rank(self.scores.latest if self.ranker.oracle else self.scores.logits())

    def own_frames(self, number: int, masks: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The frames whose results are this window's, and their masks (Q, 1, h, w)."""
        seen, own = self.windows[number]
        for frame in range(own.start, own.stop):
            yield frame, masks[:, frame - seen.start, None]

    def add_labels(self, number: int, classes: Classes, masks: Tensor) -> None:
        for frame, maps in self.own_frames(number, masks):
            _, labels = semantic(classes, maps, self.sizes, self.results.resize_first, False)
            self.labels.append(labels[0].cpu().numpy())
            for callback in self.model.label_callbacks:
                callback(self.sample, frame, self.labels[frame])

    def add_objects(self, number: int, classes: Classes, masks: Tensor, queries: Tensor) -> None:
        chosen = self.objects(classes)  # (M,)
        self.classes = classes._replace(probabilities=classes.probabilities[chosen])
        before, after = shared_frames(self.windows, number)
        found = Found(
            queries[chosen],
            F.pad(self.classes.probabilities[:, :-1], (0, 1)).amax(1).tolist(),
            (masks[chosen, before] > 0).flatten(1),
            (masks[chosen, after] > 0).flatten(1),
            self.windows[number].num_own,
        )
        tracks = self.tracks.link(found)
        for frame, maps in self.own_frames(number, masks):
            rles = encode_masks(binary_masks(maps[chosen], self.sizes)[:, 0]) if tracks else []
            for track, rle in zip(tracks, rles, strict=True):
                if rle is not None:
                    track.masks[frame] = self.rles.add(rle["counts"])

    def objects(self, classes: Classes) -> Tensor:
        """The queries that may be objects: the best detections, and those of some category.

        With the best detections a video of one window has the results of the clip.
        """
        best = detect(classes, self.results.detections_per_video, self.results)[1]
        likely = classes.probabilities.argmax(1) < len(classes.ids)  # (Q,)
        return likely.index_fill(0, best, True).nonzero().flatten()

    def result(self) -> dict:
        ranking, result = self.ranking(), {}
        if self.results.semantic:
            result["sem_seg_frames"] = self.labels
        if self.results.instance:
            result |= self.instances(ranking)
        if ranking is not None:
            result["ranking"] = ranking_result(ranking)
        return result

    def instances(self, ranking: Ranking | None) -> dict:
        """The best pairs of track and category."""
        tracks = self.tracks.all
        none = torch.zeros(0, device=self.model.device)
        scores, which, categories = none, none.long(), none.long()
        if tracks:
            classes = self.track_classes(tracks, ranking)
            scores, which, categories = detect(
                classes, self.results.detections_per_video, self.results
            )
        return {
            "image_size": self.sizes.output,
            "pred_scores": scores,
            "pred_labels": categories,
            "pred_masks": [self.masks(tracks[i]) for i in which.tolist()],
        }

    def masks(self, track: Track) -> list[dict | None]:
        """The RLEs of all frames of the video."""
        rles = dict.fromkeys(range(self.num_frames))
        for frame, key in track.masks.items():
            rles[frame] = {"size": list(self.sizes.output), "counts": self.rles.get(key)}
        return list(rles.values())

    def track_classes(self, tracks: list[Track], ranking: Ranking | None) -> Classes:
        """Class probabilities of the tracks: means over their frames, by the video's ranking."""
        if len(self.windows) == 1:  # computed already; with fewer queries bits might differ
            return self.classes
        queries = torch.stack([query for track in tracks for query in track.queries])  # (M, D)
        logits = self.model.classify(queries[None], ranking)[0]  # (M, K+1)
        with torch.autocast(queries.device.type, enabled=False):
            classes = class_probabilities(logits, ranking, self.results.excluded)
            parts = classes.probabilities.split([len(track.queries) for track in tracks])
            means = [
                part.new_tensor(track.weights) / sum(track.weights) @ part
                for part, track in zip(parts, tracks, strict=True)
            ]
        return classes._replace(probabilities=torch.stack(means))


class VideoScores:
    """The scores of a video's categories: the logit of the mean probability over its frames.

    A mean of logits would lose a category that is certain in a part of the video only. A maximum
    would keep the mistake of a single window.
    """

    def __init__(self) -> None:
        self.votes = None  # (2, B, C): logarithms of the sums of the probabilities for and against

    def add(self, logits: Tensor, num_frames: int) -> None:
        """Add logits (B, C) of a window with the results of `num_frames` frames."""
        self.latest = logits
        # In double precision the logit of one window is that window's logit again.
        votes = F.logsigmoid(torch.stack([logits, -logits]).cpu().double()) + math.log(num_frames)
        self.votes = votes if self.votes is None else torch.logaddexp(self.votes, votes)

    def logits(self) -> Tensor:
        yes, no = self.votes
        return (yes - no).to(self.latest)


def _video_name(sample: dict) -> str:
    """The name of a video in error messages."""
    return f"the video {sample['video_id']}" if "video_id" in sample else "a video"
