"""RankSeg: rank the categories of the image, then classify regions or pixels among the best κ only.

`RankSeg` adds the ranking to a model of any family. Two small classes adapt it to regions (targets
of categories that are not kept are dropped) and to pixels (labels become ranks). Criterion and
matcher do not know of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ...checkpoints import Rows
from ...ranking import (
    BlockHead,
    Ranker,
    Ranking,
    RankNorm,
    mask_scores,
    multi_hot,
    relabel,
    relabel_map,
)
from ..clips import Clips, to_device
from ..gradient_checkpointing import compute_again, head_layers
from ..oracle import label_metadata, present_labels
from ..outputs import MaskPredictions, Outputs, PixelPredictions
from ..pixel_heads.head import PixelHead
from ..results import Sizes, ranking_result
from .eomt import EoMT
from .mask_classification import MaskFormer, VideoMaskFormer
from .pixel_classification import PixelClassifier, PixelTargets
from .rankseg_options import (
    build_ml_head,
    build_ranker,
    check_head,
    check_layer,
    check_options,
    score_weights,
)


class RankSeg:
    """Adds the ranking to a model; list it before the model's class among the bases."""

    ranks = True

    @configurable
    def __init__(
        self,
        *,
        ml_head: nn.Module | None,
        ranker: Ranker,
        rank_norm: bool,
        score_weights: tuple[float, float] = (1.0, 0.0),
        label_metadata: Any = None,
        **options: Any,
    ):
        """
        Args:
            ml_head: the multi-label head; None: the ranking comes from masks alone or, for the
                oracle, from the labels.
            rank_norm: classify with the rank-adaptive temperature.
            score_weights: of the scores of the multi-label head and of those by masks, in their
                sum.
            label_metadata: by which the oracle reads label files; None: they have class ids.
        """
        super().__init__(**options)
        self.ranker = ranker
        self.score_weights = score_weights
        self.label_metadata = label_metadata
        if ml_head is not None:
            self.ml_head = ml_head
            if isinstance(ranker.loss, nn.Module):
                self.ml_loss = ranker.loss  # here as well, so that its buffers are saved
        if rank_norm:
            unbiased = ranker.oracle and getattr(self.sem_seg_head, "unbiased", False)
            self.ml_norm = RankNorm(ranker.largest_topk, self.no_object, unbiased)
        self.adapt_classifier()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_options(cfg, cls.__name__)
        options, weights = cfg.MODEL.RANKSEG, score_weights(cfg)
        own = super().from_config(cfg)
        check_head(cfg, own["sem_seg_head"])
        ml_head = None
        if weights[0]:
            ml_head = build_ml_head(cfg, *cls.rank_widths(own["sem_seg_head"]))
            if cfg.MODEL.SEM_SEG_HEAD.USE_CHECKPOINT:
                compute_again(head_layers(ml_head))
        return own | {
            "ml_head": ml_head,
            "ranker": build_ranker(cfg),
            "rank_norm": options.FLAG and options.NORM,
            "score_weights": weights,
            "label_metadata": label_metadata(cfg) if options.USE_GT else None,
        }

    @property
    def norm(self) -> RankNorm | None:
        return getattr(self, "ml_norm", None)

    def preprocess(self, batched_inputs: list[dict]) -> Clips:
        """At inference the oracle reads which categories are present; training has targets."""
        clips = super().preprocess(batched_inputs)
        if self.training or not self.ranker.oracle:
            return clips
        labels = [present_labels(sample, self.label_metadata) for sample in batched_inputs]
        return replace(clips, present=multi_hot(labels, self.num_classes).to(self.device))

    def run_network(self, clips: Clips) -> Outputs:
        outputs = super().run_network(clips)
        if self.training or not self.ranker.oracle:
            return outputs
        return replace(outputs, scores=clips.present.float())

    def network(self, frames: Tensor, num_frames: int = 1) -> Outputs:
        outputs = super().network(frames, num_frames)
        return outputs if self.ranker.oracle else self.scored(outputs)

    def scored(self, outputs: Outputs) -> Outputs:
        """The outputs with scores: those of the multi-label head, by masks, or their sum."""
        by_head, by_masks = self.score_weights
        if by_head:
            outputs = self.scored_by_head(outputs)
        if not by_masks:
            return outputs
        scores = by_masks * self.score_by_masks(outputs)
        if by_head:
            scores = scores + by_head * outputs.head_scores.detach()
        return replace(outputs, scores=scores)

    def scored_by_head(self, outputs: Outputs) -> Outputs:
        """The outputs with scores, and with whatever else the multi-label head changes."""
        scores = self.score(outputs)
        return replace(outputs, scores=scores, head_scores=scores)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of the categories of each image by the multi-label head: (B, C) logits."""
        features = self.rank_features(outputs)  # (B, N, D)
        if self.ml_head.shared_dim is None:
            return self.ml_head(features)
        return self.ml_head(features, self.class_embedding(outputs))

    def score_by_masks(self, outputs: Outputs) -> Tensor:
        """Logits of the best probability that a region or pixel gives: (B, C), no gradient."""
        features, embeddings, bias = self.classified(outputs)

        def classify(part: Tensor) -> Tensor:
            logits = self.ranker.compare(part, embeddings, bias)
            return logits if self.norm is None else self.norm.unranked(logits)

        return mask_scores(classify, features, self.num_classes)

    def losses(self, outputs: Outputs, targets: Any) -> dict[str, Tensor]:
        present = multi_hot(self.labels_of(targets), self.num_classes)  # (B, C)
        present = present.to(self.device)
        scores = present if self.ranker.oracle else outputs.scores
        iteration = get_event_storage().iter if has_event_storage() else None
        ranking = self.ranker.rank_in_training(scores, present, iteration)
        outputs = replace(outputs, ranking=ranking)
        losses = super().losses(outputs, self.ranked_targets(targets, ranking))
        if outputs.head_scores is None:
            return losses
        loss = self.ranker.multi_label_loss(outputs.head_scores, present)
        return losses | {"loss_ml": loss}

    def decide(self, outputs: Outputs) -> Outputs:
        """Rank, unless `outputs` have a ranking already."""
        if outputs.ranking is None:
            outputs = replace(outputs, ranking=self.ranker.rank(outputs.scores))
        return super().decide(outputs)

    def result(self, outputs: Outputs, i: int, sizes: Sizes) -> dict:
        """Results with `ranking`: scores (C,), logits, and the kept classes (K,), best first."""
        result = super().result(outputs, i, sizes)
        return result | {"ranking": ranking_result(outputs.ranking.image(i))}

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: the class tokens."""
        if not hasattr(self, "ml_head"):
            return set()
        return {f"ml_head.{name}" for name in self.ml_head.no_weight_decay()}

    def rate_parts(self) -> dict[str, str]:
        return super().rate_parts() | {"ml_head": "MLHEAD_MULTIPLIER"}

    def checkpoint_rows(self) -> dict[str, Rows]:
        tokens, ranks = Rows("classes", dim=1), Rows("ranks", closed=self.no_object)
        rows = {f"ml_head.{name}": tokens for name in ("cls_emb", "fc.W", "fc.b")}
        classes = ("ml_head.fc.weight", "ml_head.fc.bias", "ml_head.fc.group", "ml_loss.images")
        rows |= {name: Rows("classes") for name in classes}
        rows |= {"ml_head.group_emb": Rows("groups", dim=1)}
        rows |= {f"ml_norm.{name}": ranks for name in ("weight", "bias")}
        return super().checkpoint_rows() | rows

    # What differs between regions and pixels.

    no_object: bool  # whether the classifier has a column for no-object

    @staticmethod
    def rank_widths(head: nn.Module) -> tuple[int, int]:
        """Channels of the multi-label head's input, and of the class embeddings."""
        raise NotImplementedError

    def adapt_classifier(self) -> None:
        """Change the classifier as the ranking needs it."""

    def labels_of(self, targets: Any) -> Sequence[Tensor]:
        """The category ids in each image, any number of times."""
        raise NotImplementedError

    def ranked_targets(self, targets: Any, ranking: Ranking) -> Any:
        """The targets with ranks for category ids."""
        raise NotImplementedError

    def classified(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the classifier compares: (B, N, D), (C or C+1, D) or (B, C, D), and a bias."""
        raise NotImplementedError


class RankedRegions(RankSeg):
    """For models that classify regions: targets of categories that are not kept are dropped."""

    no_object = True

    @staticmethod
    def rank_widths(head: nn.Module) -> tuple[int, int]:
        width = head.predictor.class_embed.in_features
        return width, width

    def adapt_classifier(self) -> None:
        predictor = self.sem_seg_head.predictor
        if hasattr(self, "ml_head"):
            check_layer(self.rank_layer, predictor.num_layers)
        if self.ranker.cosine:
            predictor.class_embed.register_parameter("bias", None)

    def labels_of(self, targets: list[dict]) -> list[Tensor]:
        return [target["labels"] for target in targets]

    def ranked_targets(self, targets: list[dict], ranking: Ranking) -> list[dict]:
        return _keep_ranked(targets, ranking)

    def classified(self, outputs: MaskPredictions) -> tuple[Tensor, Tensor, Tensor | None]:
        classifier = self.sem_seg_head.predictor.class_embed
        return outputs.queries[-1], classifier.weight, classifier.bias

    def classify(self, queries: Tensor, ranking: Ranking | None = None) -> Tensor:
        """Logits of the ranked categories only: (..., B, Q, D) -> (..., B, Q, K+1)."""
        classifier = self.sem_seg_head.predictor.class_embed
        return self.ranker.classify(queries, classifier.weight, classifier.bias, ranking, self.norm)


class RankedPixels(RankSeg):
    """For models that classify pixels: labels become ranks, and the other labels are ignored."""

    no_object = False

    @staticmethod
    def rank_widths(head: PixelHead) -> tuple[int, int]:
        return head.coarse_width, head.class_width

    def scored_by_head(self, outputs: PixelPredictions) -> PixelPredictions:
        if not isinstance(self.ml_head, BlockHead):
            return super().scored_by_head(outputs)
        head, size = self.sem_seg_head, outputs.pixels.shape[-2:]
        pooled = head.pooled(outputs.pixels) if head.rank_pool else None  # (B, M, D)
        scores, pixels, classes = self.ml_head.joint(
            outputs.pixels.flatten(2).mT, pooled, self.class_embedding(outputs)
        )
        pixels = pixels.mT.unflatten(2, size)  # (B, D, h, w)
        outputs = replace(outputs, pixels=pixels, classes=[classes])
        return replace(outputs, scores=scores, head_scores=scores)

    def labels_of(self, targets: PixelTargets) -> Tensor:
        return targets.classes  # (B, H, W)

    def ranked_targets(self, targets: PixelTargets, ranking: Ranking) -> PixelTargets:
        ranks = relabel_map(targets.classes, ranking, self.sem_seg_head.ignore_value)
        return targets._replace(labels=ranks)

    def classified(self, outputs: PixelPredictions) -> tuple[Tensor, Tensor, Tensor | None]:
        """The pixels of a map that is as coarse as that of a multi-label head."""
        return self.sem_seg_head.pooled(outputs.pixels), outputs.classes[-1], outputs.bias

    def classify(
        self,
        pixels: Tensor,
        classes: Tensor,
        bias: Tensor | None,
        ranking: Ranking | None = None,
    ) -> Tensor:
        """Logits of the ranked categories only: (B, h·w, D) -> (B, h·w, K)."""
        refine = self.sem_seg_head.refine
        return self.ranker.classify(pixels, classes, bias, ranking, self.norm, refine)


class RankSegMaskFormer(RankedRegions, MaskFormer):
    """MaskFormer and Mask2Former that rank the categories of the image."""


class RankSegVideoMaskFormer(RankedRegions, VideoMaskFormer):
    """The same for clips, with one ranking per clip."""


class RankSegEoMT(RankedRegions, EoMT):
    """EoMT that ranks the categories of the image."""


class RankSegPixelClassifier(RankedPixels, PixelClassifier):
    """A pixel classifier that ranks the categories of the image."""


def _keep_ranked(targets: list[dict], ranking: Ranking) -> list[dict]:
    """Targets with ranks for labels, without the objects whose category is not ranked.

    In training, the share of the objects that are kept is logged.
    """
    relabelled = []
    for i, target in enumerate(targets):
        valid = None if ranking.valid is None else ranking.valid[i]
        relabelled.append(relabel(target["labels"], ranking.index[i], valid))
    # One copy from the device for all images, instead of one per image.
    keeps = torch.cat([keep for _, keep in relabelled]).cpu().numpy()
    if has_event_storage() and len(keeps):
        get_event_storage().put_scalar("ranking/kept_objects", keeps.mean())
    ends = np.cumsum([len(ranks) for ranks, _ in relabelled])
    keeps = np.split(keeps, ends[:-1])
    kept = []
    for target, (ranks, _), keep in zip(targets, relabelled, keeps, strict=True):
        index = to_device(torch.from_numpy(np.flatnonzero(keep)), ranks.device)
        kept.append({**target, "labels": ranks[index], "masks": target["masks"][index]})
    return kept
