"""RankSeg: rank the categories of the image, then classify queries among the best κ only."""

import logging
from dataclasses import replace

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ...errors import unknown_name
from ...ranking import (
    HEADS,
    LOSSES,
    Ranking,
    RankNorm,
    check_topk,
    cosine_logits,
    keep_valid,
    multi_hot,
    rank,
    rank_from_labels,
    relabel,
    restrict_embeddings,
)
from ..clips import Clips
from ..oracle import present_labels
from ..registering import register
from ..results.options import ranking_result
from ..transformer_decoder import Predictions
from .mask_classification import MaskFormer, VideoMaskFormer

logger = logging.getLogger(__name__)


class RankSegMixin:
    """Adds the ranking to a mask-classification model; criterion and matcher do not know of it."""

    ranked = None

    @configurable
    def __init__(
        self,
        *,
        ml_head: nn.Module | None,
        topk: int,
        threshold: float | None,
        keep_true: bool,
        layer: int,
        loss: str,
        loss_weight: float,
        rank_norm: bool,
        cosine: bool,
        **options,
    ):
        """Without `ml_head` the ranking is the oracle's: it comes from the labels."""
        super().__init__(**options)
        check_topk(topk, self.num_classes)
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(
                "MODEL.RANKSEG.THRESHOLD is a probability, between 0 and 1 (0 keeps all TOPK), but "
                f"is {threshold}"
            )
        if loss not in LOSSES:
            raise unknown_name("MODEL.RANKSEG.LOSS", loss, LOSSES)
        if ml_head is not None:
            check_layer(layer, self.sem_seg_head.predictor.num_layers)
        self.topk = topk
        self.threshold = threshold
        self.keep_true = keep_true
        self.layer = layer
        self.loss = LOSSES[loss]
        self.loss_weight = loss_weight
        self.cosine = cosine
        if ml_head is not None:
            self.ml_head = ml_head
        if rank_norm:
            self.ml_norm = RankNorm(topk)
        if cosine:
            self.class_embed.register_parameter("bias", None)

    @classmethod
    def from_config(cls, cfg):
        options = cfg.MODEL.RANKSEG
        if not (options.FLAG or options.USE_GT):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE is {cls.__name__}, but nothing says how it ranks: set "
                "MODEL.RANKSEG.FLAG True, or USE_GT for the oracle; without a ranking it is "
                f"{cls.__name__.removeprefix('RankSeg')}"
            )
        num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        return super().from_config(cfg) | {
            "ml_head": None if options.USE_GT else build_ml_head(cfg),
            # The oracle alone, without a number of ranks, keeps all categories that are present.
            "topk": options.TOPK if options.FLAG or options.TOPK else num_classes,
            "threshold": options.THRESHOLD or None,
            "keep_true": options.KEEP_TRUE,
            "layer": options.LAYER,
            "loss": options.LOSS,
            "loss_weight": options.LOSS_WEIGHT,
            "rank_norm": options.FLAG,
            "cosine": cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM,
        }

    @property
    def class_embed(self) -> nn.Linear:
        return self.sem_seg_head.predictor.class_embed

    @property
    def uses_oracle(self) -> bool:
        return not hasattr(self, "ml_head")

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would only pull together: class tokens."""
        if self.uses_oracle:
            return set()
        return {f"ml_head.{name}" for name in self.ml_head.no_weight_decay()}

    def preprocess(self, batched_inputs: list[dict]) -> Clips:
        """The oracle of the test reads which categories there are; training has targets."""
        clips = super().preprocess(batched_inputs)
        if self.training or not self.uses_oracle:
            return clips
        labels = [present_labels(sample) for sample in batched_inputs]
        return replace(clips, present=multi_hot(labels, self.num_classes).to(self.device))

    def losses(self, outputs: Predictions, targets: list[dict]) -> dict[str, Tensor]:
        present = multi_hot([target["labels"] for target in targets], self.num_classes)  # (B, C)
        present = present.to(outputs.queries.device)
        scores = self.category_scores(outputs, present)  # (B, C)
        ranking = self.rank(scores, present.bool() if self.keep_true else None)
        outputs = replace(outputs, ranking=ranking)
        losses = super().losses(outputs, keep_ranked(targets, outputs.ranking))
        if self.uses_oracle:
            return losses
        return losses | {"loss_ml": self.loss_weight * self.loss(scores, present)}

    def decide(self, outputs, present=None):
        """Rank, unless `outputs` bring a ranking with them."""
        if outputs.ranking is None:
            ranking = self.rank(self.category_scores(outputs, present))
            outputs = replace(outputs, ranking=ranking)
        return super().decide(outputs)

    def inference(self, outputs, batched_inputs, clips):
        """Results with `ranking`: scores (C,), logits, and the kept classes (K,), best first."""
        results = super().inference(outputs, batched_inputs, clips)
        for i, result in enumerate(results):
            result["ranking"] = ranking_result(outputs.ranking.image(i))
        return results

    def category_scores(self, outputs: Predictions, present: Tensor | None = None) -> Tensor:
        """What the ranking goes by, (B, C): logits, or for the oracle what is present."""
        return present if self.uses_oracle else self.multi_label_logits(outputs)

    def multi_label_logits(self, outputs: Predictions) -> Tensor:
        """How strongly each category is seen in the image: (B, C) logits."""
        features = outputs.layers[self.layer - 1]  # (B, Q, D)
        if self.ml_head.shared_dim is None:
            return self.ml_head(features)
        return self.ml_head(features, self.class_embed.weight[:-1])

    def rank(self, scores: Tensor, keep: Tensor | None = None) -> Ranking:
        """The best κ; with a threshold (a probability) fewer where fewer are likely."""
        if self.uses_oracle:
            return rank_from_labels(scores, self.topk)
        if self.threshold is None:
            return rank(scores, self.topk, keep=keep)
        ranking = rank(scores.sigmoid(), self.topk, self.threshold, keep)
        return replace(ranking, scores=scores)

    def classify(self, outputs: Predictions, queries: Tensor) -> Tensor:
        """Logits of the ranked categories only: (..., B, Q, D) -> (..., B, Q, K+1)."""
        ranking = outputs.ranking
        embeddings = restrict_embeddings(self.class_embed.weight, ranking)  # (B, K+1, D)
        if self.cosine:
            logits = cosine_logits(queries, embeddings)
        else:
            bias = restrict_embeddings(self.class_embed.bias[:, None], ranking)  # (B, K+1, 1)
            logits = queries @ embeddings.mT + bias.mT
        if hasattr(self, "ml_norm"):
            return self.ml_norm(logits, ranking)
        return keep_valid(logits, ranking)


@register(META_ARCH_REGISTRY)
class RankSegMaskFormer(RankSegMixin, MaskFormer):
    """MaskFormer and Mask2Former that rank the categories of the image."""


@register(META_ARCH_REGISTRY)
class RankSegVideoMaskFormer(RankSegMixin, VideoMaskFormer):
    """The same for clips, with one ranking per clip."""


MaskFormer.ranked = RankSegMaskFormer
VideoMaskFormer.ranked = RankSegVideoMaskFormer


def keep_ranked(targets: list[dict], ranking: Ranking) -> list[dict]:
    """Targets with ranks for labels, without the objects whose category is not ranked.

    In a training, the share of the objects that are kept is logged.
    """
    relabelled = []
    for i, target in enumerate(targets):
        valid = None if ranking.valid is None else ranking.valid[i]
        relabelled.append(relabel(target["labels"], ranking.index[i], valid))
    # One copy from the device says how many objects are left of all images.
    keeps = torch.cat([keep for _, keep in relabelled]).cpu()
    if has_event_storage() and len(keeps):
        get_event_storage().put_scalar("ranking/kept_objects", keeps.float().mean())
    keeps = keeps.split([len(ranks) for ranks, _ in relabelled])
    return [
        {**target, "labels": ranks[keep], "masks": target["masks"][keep]}
        for target, (ranks, _), keep in zip(targets, relabelled, keeps, strict=True)
    ]


def check_layer(layer: int, num_layers: int) -> None:
    """Raise ValueError unless the decoder has that layer, counted from 1."""
    if not 1 <= layer <= num_layers:
        raise ValueError(
            "MODEL.RANKSEG.LAYER must be between 1 and the number of decoder layers, "
            f"{num_layers}, but is {layer}; choose one of these or raise "
            "MODEL.MASK_FORMER.DEC_LAYERS"
        )


def build_ml_head(cfg) -> nn.Module:
    """The multi-label head of MODEL.RANKSEG.HEAD."""
    options = cfg.MODEL.RANKSEG
    if options.HEAD not in HEADS:
        raise unknown_name("MODEL.RANKSEG.HEAD", options.HEAD, HEADS)
    if options.LOSS_WEIGHT <= 0:
        logger.warning(
            "MODEL.RANKSEG.LOSS_WEIGHT is %s, so that nothing trains the multi-label head; the "
            "paper's is 10",
            options.LOSS_WEIGHT,
        )
    width = cfg.MODEL.MASK_FORMER.HIDDEN_DIM
    return HEADS[options.HEAD](
        width,
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        options.HIDDEN_DIM,
        shared_dim=width if options.SHARE_EMBEDDING else None,
    )
