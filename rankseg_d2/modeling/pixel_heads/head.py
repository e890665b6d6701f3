"""What the heads of a PixelClassifier have in common."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...checkpoints import Rows
from ...ranking import cosine_logits
from ..outputs import PixelPredictions
from ..pooling import average_cells
from .auxiliary import AuxiliaryHead


class PixelHead(nn.Module):
    """Makes features of pixels and embeddings of classes; a logit is their product.

    A subclass defines `forward` and `class_embedding`. It may also change pixels and classes
    together once the ranking is known (`refine`), and normalise the logits (`class_norm`).
    """

    any_size = False  # takes levels whose sides are no multiples of each other
    cosine = False  # logits are cosines, not products
    joint = False  # pixels and class embeddings have one width: the multi-label head may mix them
    unbiased = False  # the oracle's norm over the ranks divides by their number less one

    def __init__(
        self,
        *,
        num_classes: int,
        stride: int,
        coarse_width: int,
        class_width: int,
        loss_weight: float = 1.0,
        ignore_value: int = 255,
        average_all: bool = False,
        stretch: bool = False,
        auxiliary: AuxiliaryHead | None = None,
        presence_weight: float = 0.0,
        rank_pool: int = 0,
    ):
        """
        Args:
            stride: pixels of the image for each pixel of the head, in both directions.
            coarse_width: channels of `PixelPredictions.coarse`, which a multi-label head reads.
            class_width: channels of `class_embedding`, which a multi-label head may share.
            average_all: the loss is divided by the number of all pixels, ignored ones included.
            stretch: results are resized from the whole map, padding included, to the image.
            auxiliary: a head whose loss is added in training.
            presence_weight: of the loss of `PixelPredictions.presence`.
            rank_pool: a multi-label head reads a map of so many cells squared; 0: all cells.
        """
        super().__init__()
        self.num_classes = num_classes
        self.stride = stride
        self.coarse_width = coarse_width
        self.class_width = class_width
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        self.average_all = average_all
        self.stretch = stretch
        self.auxiliary = auxiliary
        self.presence_weight = presence_weight
        self.rank_pool = rank_pool
        self.class_norm: nn.Module | None = None  # of the C logits of a pixel; RankSeg has its own

    @property
    def refines(self) -> bool:
        """Whether the logits of a class depend on which other classes are kept."""
        return type(self).refine is not PixelHead.refine

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "num_classes": head.NUM_CLASSES,
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
            "average_all": head.AVERAGE_ALL,
            "stretch": head.STRETCH,
            "auxiliary": AuxiliaryHead.from_config(cfg, input_shape),
            "presence_weight": head.ENCODING.WEIGHT,
            "rank_pool": cfg.MODEL.RANKSEG.POOL,
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> predictions, without logits."""
        raise NotImplementedError

    def class_embedding(self) -> Tensor:
        """The class embeddings that a multi-label head can share: (C, D)."""
        raise NotImplementedError

    def pooled(self, coarse: Tensor) -> Tensor:
        """What a multi-label head reads of a map: (B, D, h, w) -> (B, N, D)."""
        if self.rank_pool:
            coarse = average_cells(coarse, self.rank_pool)
        return coarse.flatten(2).mT

    def shared_embedding(self, outputs: PixelPredictions) -> Tensor:
        """The same for the images of these outputs: (C, D), or (B, C, D) where they differ."""
        return self.class_embedding()

    def class_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for classes, by name."""
        layers = ("predictor", "auxiliary.predictor", "encoding.presence")
        names = [f"{layer}.{name}" for layer in layers for name in ("weight", "bias")]
        names += ["predictor.query_feat.weight", "predictor.query_embed.weight"]
        return dict.fromkeys(names, Rows("classes"))

    def refine(
        self, pixels: Tensor, classes: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels (B, N, D) and the embeddings of the classes that are left (B or 1, K, D).

        `valid` (B, K) bool says which of these are to be read; None: all.
        """
        return pixels, classes

    def classify(self, pixels: Tensor, classes: Tensor, bias: Tensor | None) -> Tensor:
        """Class logits of pixels: (B, N, D), (B or 1, C, D), (C,) -> (B, N, C)."""
        pixels, classes = self.refine(pixels, classes.expand(pixels.shape[0], -1, -1))
        logits = cosine_logits(pixels, classes) if self.cosine else pixels @ classes.mT
        logits = logits if bias is None else logits + bias
        return logits if self.class_norm is None else self.class_norm(logits)

    def compared(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, K, H, W) and the labels (B, H, W) of which the loss is computed."""
        return logits, labels
