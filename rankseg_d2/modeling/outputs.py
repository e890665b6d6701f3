"""The predictions of a model's network, before the ranking says which categories are kept."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..ranking import Ranking

CLASS_LOGITS = "class_logits"  # the name under which a backbone gives logits of its own


@dataclass(frozen=True)
class Outputs:
    """The fields that the predictions of every family have; subclasses add their own."""

    # (B, C) scores of the categories of the whole image or clip, by which they are ranked: logits
    # or, for the oracle, which categories are present. None: the model does not rank.
    scores: Tensor | None = field(default=None, kw_only=True)
    # (B, C) logits of the multi-label head, which its loss trains; None: there is no such head.
    head_scores: Tensor | None = field(default=None, kw_only=True)
    # Which categories the columns of the class logits stand for; None: all, in their order.
    ranking: Ranking | None = field(default=None, kw_only=True)
    # (B·T, C, h, w) logits that the backbone itself gives, in training; None: it gives none.
    backbone_logits: Tensor | None = field(default=None, kw_only=True)

    def ranked(self, ranking: Ranking | None) -> "Outputs":
        """These outputs with another ranking."""
        return replace(self, ranking=ranking)

    def image_ranking(self, i: int) -> Ranking | None:
        """The ranking of image i alone, as a batch of one."""
        return None if self.ranking is None else self.ranking.image(i)


@dataclass(frozen=True)
class MaskPredictions(Outputs):
    """L predictions of a mask classifier, the last of which is the result.

    The network gives no class logits: the meta-architecture adds them, once the ranking is
    known.
    """

    queries: Tensor  # (L, B, Q, D), after the decoder's norm: input of the classifier
    masks: list[Tensor]  # L times (B, Q, T, h, w), logits
    layers: list[Tensor]  # per decoder layer (B, Q, D), before the norm: input of a ranking head
    logits: Tensor | None = None  # (L, B, Q, K+1) of the classes, no-object last


@dataclass(frozen=True)
class PixelPredictions(Outputs):
    """L predictions of a pixel classifier, the last of which is the result.

    A class logit is the product of a pixel and a class embedding, which the meta-architecture
    computes for the classes that are kept.
    """

    pixels: Tensor  # (B, D, h, w)
    classes: list[Tensor]  # L times (1 or B, C, D)
    bias: Tensor | None  # (C,) of the classes
    coarse: Tensor  # (B, D', h', w'): input of a ranking head
    auxiliary: Tensor | None = None  # (B, C, h", w") logits of an auxiliary head, in training
    presence: Tensor | None = None  # (B, C) logits of which classes are present (EncNet)
    logits: list[Tensor] | None = None  # L times (B, K, h, w)


@dataclass(frozen=True)
class LocationPredictions(Outputs):
    """The predictions of a detector at P locations: the cells of the maps of all its levels."""

    locations: Tensor  # (P, 2) x and y in pixels of the network's input
    levels: Tensor  # (P,) int64: the number of the level, the finest first
    strides: Tensor  # (P,) pixels from one location of the level to the next
    logits: Tensor  # (B, P, C) of the classes
    distances: Tensor  # (B, P, 4) to the sides of the object's box: left, top, right, bottom
    centerness: Tensor  # (B, P) logits
    kernels: Tensor  # (B, P, D) parameters of the layers that draw the object's mask
    features: Tensor  # (B, D', h, w) mask features
    feature_stride: int
