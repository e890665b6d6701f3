"""RankSeg: rank the categories of the image, then classify regions or pixels among the best κ only.

`RankSeg` adds the ranking to a model of any family. Two small classes adapt it to regions (targets
of categories that are not kept are dropped) and to pixels (labels become ranks). Criterion and
matcher do not know of it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ...checkpoints import Rows
from ...errors import unknown_name
from ...ranking import (
    HEADS,
    LOSSES,
    BlockHead,
    ConvPoolingHead,
    Ranker,
    Ranking,
    RankNorm,
    multi_hot,
    relabel,
    relabel_map,
)
from ..clips import Clips, to_device
from ..oracle import label_metadata, present_labels
from ..outputs import Outputs, PixelPredictions
from ..pixel_heads.head import PixelHead
from ..results import Sizes, ranking_result
from .mask_classification import MaskFormer, VideoMaskFormer
from .pixel_classification import PixelClassifier, PixelTargets

logger = logging.getLogger(__name__)


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
        label_metadata: Any = None,
        **options: Any,
    ):
        """
        Args:
            ml_head: the multi-label head; None: the oracle, whose ranking comes from the labels.
            rank_norm: classify with the rank-adaptive temperature.
            label_metadata: by which the oracle reads label files; None: they have class ids.
        """
        super().__init__(**options)
        self.ranker = ranker
        self.label_metadata = label_metadata
        if ml_head is not None:
            self.ml_head = ml_head
        if rank_norm:
            unbiased = ranker.oracle and getattr(self.sem_seg_head, "unbiased", False)
            self.ml_norm = RankNorm(ranker.topk, self.no_object, unbiased)
        self.adapt_classifier()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        _check_options(cfg, cls.__name__)
        options, num_classes = cfg.MODEL.RANKSEG, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        own = super().from_config(cfg)
        ml_head = None
        if not options.USE_GT:
            _check_head(cfg, own["sem_seg_head"])
            ml_head = _build_ml_head(cfg, *cls.rank_widths(own["sem_seg_head"]))
        ranker = Ranker(
            # The oracle without a number of ranks keeps all categories that are present.
            topk=options.TOPK or num_classes,
            threshold=options.THRESHOLD or None,
            keep_true=options.KEEP_TRUE,
            oracle=options.USE_GT,
            loss=LOSSES[options.LOSS],
            loss_weight=options.LOSS_WEIGHT,
            cosine=cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM,
        )
        own |= {"ml_head": ml_head, "ranker": ranker, "rank_norm": options.FLAG}
        return own | {"label_metadata": label_metadata(cfg) if options.USE_GT else None}

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
        """The outputs with scores, and with whatever else the multi-label head changes."""
        return replace(outputs, scores=self.score(outputs))

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of the categories of each image: (B, C) logits."""
        features = self.rank_features(outputs)  # (B, N, D)
        if self.ml_head.shared_dim is None:
            return self.ml_head(features)
        return self.ml_head(features, self.class_embedding(outputs))

    def losses(self, outputs: Outputs, targets: Any) -> dict[str, Tensor]:
        present = multi_hot(self.labels_of(targets), self.num_classes)  # (B, C)
        present = present.to(self.device)
        scores = present if self.ranker.oracle else outputs.scores
        ranking = self.ranker.rank_in_training(scores, present)
        outputs = replace(outputs, ranking=ranking)
        losses = super().losses(outputs, self.ranked_targets(targets, ranking))
        if self.ranker.oracle:
            return losses
        return losses | {"loss_ml": self.ranker.multi_label_loss(scores, present)}

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
        if self.ranker.oracle:
            return set()
        return {f"ml_head.{name}" for name in self.ml_head.no_weight_decay()}

    def rate_parts(self) -> dict[str, str]:
        return super().rate_parts() | {"ml_head": "MLHEAD_MULTIPLIER"}

    def checkpoint_rows(self) -> dict[str, Rows]:
        tokens, ranks = Rows("classes", dim=1), Rows("ranks", closed=self.no_object)
        rows = {f"ml_head.{name}": tokens for name in ("cls_emb", "fc.W", "fc.b")}
        rows |= {f"ml_head.fc.{name}": Rows("classes") for name in ("weight", "bias")}
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


class RankedRegions(RankSeg):
    """For models that classify regions: targets of categories that are not kept are dropped."""

    no_object = True

    @staticmethod
    def rank_widths(head: nn.Module) -> tuple[int, int]:
        width = head.predictor.class_embed.in_features
        return width, width

    def adapt_classifier(self) -> None:
        predictor = self.sem_seg_head.predictor
        if not self.ranker.oracle:
            _check_layer(self.rank_layer, predictor.num_layers)
        if self.ranker.cosine:
            predictor.class_embed.register_parameter("bias", None)

    def labels_of(self, targets: list[dict]) -> list[Tensor]:
        return [target["labels"] for target in targets]

    def ranked_targets(self, targets: list[dict], ranking: Ranking) -> list[dict]:
        return _keep_ranked(targets, ranking)

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

    def scored(self, outputs: PixelPredictions) -> PixelPredictions:
        if not isinstance(self.ml_head, BlockHead):
            return super().scored(outputs)
        head, size = self.sem_seg_head, outputs.pixels.shape[-2:]
        pooled = head.pooled(outputs.pixels) if head.rank_pool else None  # (B, M, D)
        scores, pixels, classes = self.ml_head.joint(
            outputs.pixels.flatten(2).mT, pooled, self.class_embedding(outputs)
        )
        pixels = pixels.mT.unflatten(2, size)  # (B, D, h, w)
        return replace(outputs, scores=scores, pixels=pixels, classes=[classes])

    def labels_of(self, targets: PixelTargets) -> Tensor:
        return targets.classes  # (B, H, W)

    def ranked_targets(self, targets: PixelTargets, ranking: Ranking) -> PixelTargets:
        ranks = relabel_map(targets.classes, ranking, self.sem_seg_head.ignore_value)
        return targets._replace(labels=ranks)

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


def _check_options(cfg: CfgNode, name: str) -> None:
    """Raise ValueError or KeyError for invalid options of MODEL.RANKSEG."""
    options, num_classes = cfg.MODEL.RANKSEG, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not (options.FLAG or options.USE_GT):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {name}, but its ranking is not set: set "
            "MODEL.RANKSEG.FLAG True, or USE_GT for the oracle; without a ranking it is "
            f"{name.removeprefix('RankSeg')}"
        )
    if (options.TOPK or not options.USE_GT) and not 1 <= options.TOPK <= num_classes:
        raise ValueError(
            f"MODEL.RANKSEG.TOPK must be in [1, {num_classes}], the number of classes; got "
            f"{options.TOPK}. {num_classes} keeps every category."
        )
    if not 0 <= options.THRESHOLD < 1:
        raise ValueError(
            "MODEL.RANKSEG.THRESHOLD must be a probability between 0 and 1 (0 keeps all TOPK); "
            f"got {options.THRESHOLD}."
        )
    if options.LOSS not in LOSSES:
        raise unknown_name("MODEL.RANKSEG.LOSS", options.LOSS, LOSSES)
    if options.HEAD not in HEADS:
        raise unknown_name("MODEL.RANKSEG.HEAD", options.HEAD, HEADS)
    if options.SHARE_EMBEDDING and not options.USE_GT and HEADS[options.HEAD] is ConvPoolingHead:
        raise ValueError(
            "MODEL.RANKSEG.SHARE_EMBEDDING is True, but MODEL.RANKSEG.HEAD conv_pooling has no "
            "class embedding that could be shared; set it False, or the head to pooling"
        )


def _check_head(cfg: CfgNode, head: nn.Module) -> None:
    """Raise ValueError if the multi-label head does not fit the head of the model."""
    if HEADS[cfg.MODEL.RANKSEG.HEAD] is BlockHead and not getattr(head, "joint", False):
        raise ValueError(
            "MODEL.RANKSEG.HEAD block is a part of Segmenter's decoder, but "
            f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}; set it to "
            "SegmenterMaskHead, or the multi-label head to encoder"
        )


def _check_layer(layer: int, num_layers: int) -> None:
    """Raise ValueError unless the decoder has that layer, counted from 1."""
    if not 1 <= layer <= num_layers:
        raise ValueError(
            f"MODEL.RANKSEG.LAYER must be in [1, {num_layers}], the number of decoder layers; got "
            f"{layer}. Change it, or raise MODEL.MASK_FORMER.DEC_LAYERS."
        )


def _build_ml_head(cfg: CfgNode, in_dim: int, class_dim: int) -> nn.Module:
    """The multi-label head of MODEL.RANKSEG.HEAD."""
    options = cfg.MODEL.RANKSEG
    if options.LOSS_WEIGHT <= 0:
        logger.warning(
            "MODEL.RANKSEG.LOSS_WEIGHT is %s, so nothing trains the multi-label head; the "
            "paper's value is 10",
            options.LOSS_WEIGHT,
        )
    try:
        return HEADS[options.HEAD](
            in_dim,
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            options.HIDDEN_DIM,
            shared_dim=class_dim if options.SHARE_EMBEDDING else None,
        )
    except ValueError as error:
        raise ValueError(f"MODEL.RANKSEG.HIDDEN_DIM: {error}") from error
