"""Semantic results of an image out of several forward passes that share one ranking.

Passes with rankings of their own would keep different categories: where one has a score, another
has none, and a mean would take what was never scored for a score of zero. So each pass first only
looks (the network, up to the scores of the categories); when all have looked the image is ranked,
once; then each classifies what it saw among the categories of that ranking. The scores have the
same columns then, and no network runs twice.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...ranking import Ranking
from ..meta_arch.mask_classification import MaskFormer
from ..meta_arch.rankseg import RankSegMixin


class Look(NamedTuple):
    """What a pass saw."""

    scores: Tensor | None  # (1, C): what a ranking goes by; None where the model does not rank
    segment: Callable[[Ranking | None], dict]  # the results, among the categories of a ranking


class SeveralPasses(nn.Module):
    """A model around another one; subclasses say, in `look`, which passes an image gets."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = getattr(model, "module", model)  # of DistributedDataParallel
        self.train(model.training)
        options = getattr(self.network, "results", None)
        if options and (options.panoptic or options.instance or not options.semantic):
            raise ValueError(
                f"{type(self).__name__} makes semantic results only: set MODEL.MASK_FORMER.TEST."
                "SEMANTIC_ON True, and PANOPTIC_ON and INSTANCE_ON False"
            )
        if getattr(self.network, "windows", None) is not None:
            raise ValueError(
                f"{type(self).__name__} takes a video as a whole: set TEST.VIDEO.WINDOW 0, where "
                "memory is enough for all frames at once"
            )

    @property
    def network(self) -> nn.Module:
        return self.model.network if isinstance(self.model, SeveralPasses) else self.model

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """The results of each image or clip, as those of the model inside."""
        return [self.result(sample) for sample in batched_inputs]

    def result(self, sample: dict) -> dict:
        seen = self.look(sample)
        return seen.segment(None if seen.scores is None else self.network.rank(seen.scores))

    def look(self, sample: dict) -> Look:
        raise NotImplementedError


def look(model: nn.Module, sample: dict) -> Look:
    """One pass of any model that gives semantic results."""
    if isinstance(model, SeveralPasses):
        return model.look(sample)
    if not isinstance(model, MaskFormer):
        result = model([sample])[0]
        return Look(None, lambda ranking: result)
    clips = model.preprocess([sample])
    outputs = model.sem_seg_head(model.backbone(clips.tensor), clips.num_frames)
    ranks = isinstance(model, RankSegMixin)
    scores = model.category_scores(outputs, clips.present).float() if ranks else None
    last = replace(outputs, queries=outputs.queries[-1:], masks=outputs.masks[-1:], layers=[])

    def segment(ranking):
        outputs = model.decide(replace(last, ranking=ranking))
        return model.inference(outputs, [sample], clips)[0]

    return Look(scores, segment)


def map_frames(sample: dict, function: Callable[[Tensor], Tensor]) -> Tensor | list[Tensor]:
    """The image, or all frames of the clip, with a function applied."""
    frames = sample["image"]
    return function(frames) if isinstance(frames, Tensor) else [function(x) for x in frames]


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
        full = scores.new_zeros(num_classes, *scores.shape[1:])
        changed["sem_seg"] = full.index_copy_(0, ids, scores)
    return changed | {"ranking": ranking}
