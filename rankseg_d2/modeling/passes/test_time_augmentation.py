"""Test-time augmentation: semantic scores averaged over several scales of the image, and flips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from ...data.mappers.augmentations import ResizeShortestEdge, Stretch
from ...ranking import Ranking
from ..clips import output_size
from .several import (
    Pass,
    SeveralPasses,
    image_size,
    map_frames,
    run_pass,
    semantic_scores,
    stacked_scores,
    with_scores,
)


class TestTimeAugmentation(SeveralPasses):
    """Averages the semantic scores of the image at several scales, each flipped too.

    The ranking is the image's: it takes the mean of the category scores over the scales. Give
    images at their native size (INPUT.MIN_SIZE_TEST 0), so that they are resized only once.
    """

    __test__ = False  # the name looks like a test to pytest

    def __init__(
        self,
        model: nn.Module,
        min_sizes: Sequence[int],
        max_size: int,
        flip: bool,
        flip_pairs: Sequence[tuple[int, int]] = (),
        keep_ratio: bool = True,
    ):
        """
        Args:
            flip_pairs: pairs of classes that a flip swaps, such as left and right arm.
            keep_ratio: of the image's sides; False: it becomes a square of each size.
        """
        super().__init__(model)
        if not min_sizes or min(min_sizes) < 1:
            raise ValueError(
                f"TEST.AUG.MIN_SIZES must be lengths in pixels, at least one, not {min_sizes}"
            )
        self.resizings = [
            ResizeShortestEdge(size, max_size) if keep_ratio else Stretch(size)
            for size in min_sizes
        ]
        self.flip = flip
        self.flip_pairs = flip_pairs

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> "TestTimeAugmentation":
        options = cfg.TEST.AUG
        datasets = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
        found = (MetadataCatalog.get(name).get("flip_pairs") for name in datasets)
        pairs = next((pairs for pairs in found if pairs), ())
        sizes = options.MIN_SIZES, options.MAX_SIZE
        return cls(model, *sizes, options.FLIP, pairs, cfg.INPUT.KEEP_RATIO)

    def run_pass(self, sample: dict) -> "AugmentedPasses":
        passes, mirrored = [], []
        for resizing in self.resizings:
            view = scaled(sample, resizing)
            passes.append(run_pass(self.model, view))
            if self.flip:
                mirrored.append(run_pass(self.model, flipped(view)))
        return AugmentedPasses(passes, mirrored, self.flip_pairs)


@dataclass(frozen=True)
class AugmentedPasses(Pass):
    """The passes of an image at all scales, and of its mirror images."""

    passes: list[Pass]
    mirrored: list[Pass]
    flip_pairs: Sequence[tuple[int, int]]

    @property
    def scores(self) -> Tensor | None:
        scores = stacked_scores(self.passes)
        return None if scores is None else scores.mean(0)

    def result(self, ranking: Ranking | None) -> dict:
        result = self.passes[0].result(ranking)
        total = semantic_scores(result)
        for one in self.passes[1:]:
            total = total + semantic_scores(one.result(ranking))
        for one in self.mirrored:
            total = total + self.unflipped(one.result(self.mirror(ranking)))
        return with_scores(result, total / (len(self.passes) + len(self.mirrored)))

    def swap(self, num_classes: int, device: torch.device) -> Tensor:
        """The category that each category is in a flipped image: (C,)."""
        ids = torch.arange(num_classes)
        for a, b in self.flip_pairs:
            ids[[a, b]] = ids[[b, a]]
        return ids.to(device)

    def mirror(self, ranking: Ranking | None) -> Ranking | None:
        """The ranking of the flipped image: each category has the rank of its counterpart."""
        if ranking is None:
            return None
        swap = self.swap(ranking.C, ranking.index.device)
        return Ranking(ranking.scores[:, swap], swap[ranking.index], ranking.valid)

    def unflipped(self, result: dict) -> Tensor:
        """Scores of a flipped image, flipped back; `mirror` has ordered ranked ones already."""
        scores = semantic_scores(result).flip(-1)
        if "sem_seg_classes" in result:
            return scores
        return scores[self.swap(len(scores), scores.device)]


def scaled(sample: dict, resizing: ResizeShortestEdge | Stretch) -> dict:
    """The sample with its image at another size; the results keep theirs."""
    size = image_size(sample)

    def resize(frame: Tensor) -> Tensor:
        pixels = frame.permute(1, 2, 0).cpu().numpy()  # (h, w, 3)
        pixels = resizing.get_transform(pixels).apply_image(pixels)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    height, width = output_size(sample, size)
    return {**sample, "image": map_frames(sample, resize), "height": height, "width": width}


def flipped(sample: dict) -> dict:
    return {**sample, "image": map_frames(sample, lambda frame: frame.flip(-1))}
