"""Semantic results of an image from several forward passes that share one ranking.

With one ranking per pass, the passes would keep different categories, and a mean would count a
missing score as zero. So each pass first runs the network, up to the scores of the categories. Then
the image is ranked once, and each pass classifies among the ranked categories. All scores have the
same columns, and no network runs twice.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn, no_grad, stack

from ...ranking import Ranking
from ..meta_arch.base import Segmentation
from ..outputs import Outputs
from ..results import Sizes
from ..results.segments import full_maps


class Pass:
    """A forward pass of a network over an image; its results follow once the ranking is known."""

    scores: Tensor | None  # (1, C), for the ranking; None if the model does not rank

    def result(self, ranking: Ranking | None) -> dict:
        """The results, among the categories of the ranking."""
        raise NotImplementedError


@dataclass(frozen=True)
class OnePass(Pass):
    """A pass of one of our models: the outputs of its network and three sizes, without frames."""

    model: Segmentation
    outputs: Outputs
    sizes: Sizes

    @property
    def scores(self) -> Tensor | None:
        return None if self.outputs.scores is None else self.outputs.scores.float()

    def result(self, ranking: Ranking | None) -> dict:
        outputs = self.model.decide(self.outputs.ranked(ranking))
        return self.model.result(outputs, 0, self.sizes)


@dataclass(frozen=True)
class ForeignPass(Pass):
    """The results of any other model, which does not rank."""

    found: dict
    scores = None

    def result(self, ranking: Ranking | None) -> dict:
        return self.found


class SeveralPasses(nn.Module):
    """Wraps a model; subclasses define, in `run_pass`, the passes over an image."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = getattr(model, "module", model)  # of DistributedDataParallel
        self.train(model.training)
        options = getattr(self.innermost, "result_options", None)
        if options and (options.parsing or options.entity):
            key, results = "PARSING", "persons"
            if options.entity:
                key, results = "ENTITY", "entities"
            raise ValueError(
                f"{type(self).__name__} makes semantic results only, and "
                f"MODEL.MASK_FORMER.TEST.{key}_ON makes {results}: set TEST.SLIDING_WINDOW.ENABLED "
                "and TEST.AUG.ENABLED False, or take a semantic config"
            )
        if options and (options.panoptic or options.instance or not options.semantic):
            raise ValueError(
                f"{type(self).__name__} makes semantic results only: set MODEL.MASK_FORMER.TEST."
                "SEMANTIC_ON True, and PANOPTIC_ON and INSTANCE_ON False"
            )
        if options:
            self.innermost.result_options = replace(options, semantic_scores=True)
        if getattr(self.innermost, "windows", None) is not None:
            raise ValueError(
                f"{type(self).__name__} takes a video as a whole: set TEST.VIDEO.WINDOW 0, if "
                "memory is enough for all frames at once"
            )

    @property
    def innermost(self) -> nn.Module:
        """The model inside all wrappers."""
        return self.model.innermost if isinstance(self.model, SeveralPasses) else self.model

    @no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """The results of each image or clip, in the form of the wrapped model's."""
        innermost = self.innermost
        is_ours = isinstance(innermost, Segmentation)
        with innermost.autocast() if is_ours else contextlib.nullcontext():
            return [self.predict(sample) for sample in batched_inputs]

    def predict(self, sample: dict) -> dict:
        if not isinstance(sample["image"], Tensor):
            sample = sample | {"image": list(sample["image"])}  # read once for all passes
        one = self.run_pass(sample)
        ranking = None if one.scores is None else self.innermost.ranker.rank(one.scores)
        return one.result(ranking)

    def run_pass(self, sample: dict) -> Pass:
        raise NotImplementedError


def run_pass(model: nn.Module, sample: dict) -> Pass:
    """One pass of any model that gives semantic results."""
    if isinstance(model, SeveralPasses):
        return model.run_pass(sample)
    if not isinstance(model, Segmentation):
        return ForeignPass(model([sample])[0])
    clips = model.preprocess([sample])
    return OnePass(model, model.run_network(clips), clips.result_sizes([sample])[0])


def map_frames(sample: dict, function: Callable[[Tensor], Tensor]) -> Tensor | list[Tensor]:
    """The image, or all frames of the clip, with a function applied."""
    frames = sample["image"]
    return function(frames) if isinstance(frames, Tensor) else [function(x) for x in frames]


def stacked_scores(passes: Sequence[Pass]) -> Tensor | None:
    """The category scores of all passes: (passes, 1, C). None if the model does not rank."""
    scores = [one.scores for one in passes]
    return None if scores[0] is None else stack(scores)


def image_size(sample: dict) -> tuple[int, int]:
    frames = sample["image"]
    return tuple((frames if isinstance(frames, Tensor) else frames[0]).shape[-2:])


def semantic_scores(result: dict) -> Tensor:
    """Scores of the ranked categories, or of all: (K or C, [T,] H, W)."""
    return result["sem_seg_scores"] if "sem_seg_scores" in result else result["sem_seg"]


def with_scores(result: dict, scores: Tensor) -> dict:
    """The semantic results with other scores."""
    if "sem_seg_classes" not in result:
        return {"sem_seg": scores, "sem_seg_labels": scores.argmax(0)}
    ids, ranking = result["sem_seg_classes"], result["ranking"]
    num_classes = len(ranking["scores"])
    labels = ids[scores.argmax(0)] if len(ids) else ids.new_full(scores.shape[1:], num_classes)
    changed = {"sem_seg_labels": labels, "sem_seg_scores": scores, "sem_seg_classes": ids}
    if "sem_seg" in result:
        changed["sem_seg"] = full_maps(scores, ids, num_classes)
    return changed | {"ranking": ranking}
