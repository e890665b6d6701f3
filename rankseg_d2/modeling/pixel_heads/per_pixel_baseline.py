"""MaskFormer's per-pixel baselines: heads of a PixelClassifier."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..head import decode, transformer_source
from ..outputs import PixelPredictions
from ..pixel_decoder import PixelFeatures, build_pixel_decoder
from ..registering import register
from ..transformer_decoder import build_transformer_decoder
from .head import PixelHead


@register(SEM_SEG_HEADS_REGISTRY)
class PerPixelBaselineHead(PixelHead):
    """A pixel decoder and a linear classifier of its pixels."""

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        pixel_decoder: nn.Module,
        predictor: nn.Module,
        **options: Any,
    ):
        super().__init__(**options)
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return super().from_config(cfg, input_shape) | {
            "input_shape": input_shape,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": cls.build_predictor(cfg, input_shape),
            "stride": 4,  # of the mask features
            "coarse_width": head.CONVS_DIM,
            "class_width": head.MASK_DIM,
        }

    @classmethod
    def build_predictor(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
        head = cfg.MODEL.SEM_SEG_HEAD
        predictor = Conv2d(head.MASK_DIM, head.NUM_CLASSES, kernel_size=1)
        nn.init.kaiming_normal_(predictor.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(predictor.bias)
        return predictor

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> pixels, classes, and the coarsest map."""
        pixels = self.pixel_decoder(features)
        classes, bias = [self.class_embedding()[None]], self.predictor.bias  # (1, C, D), (C,)
        return PixelPredictions(pixels.mask_features, classes, bias, coarsest(pixels))

    def class_embedding(self) -> Tensor:
        return self.predictor.weight.flatten(1)  # (C, D)


@register(SEM_SEG_HEADS_REGISTRY)
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The same with a transformer decoder: its query n makes the embedding of class n."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_in_feature: str,
        deep_supervision: bool,
        **options: Any,
    ):
        super().__init__(input_shape, **options)
        self.transformer_in_feature = transformer_in_feature
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        source, _ = transformer_source(cfg, input_shape)
        return super().from_config(cfg, input_shape) | {
            "class_width": cfg.MODEL.MASK_FORMER.HIDDEN_DIM,
            "transformer_in_feature": source,
            "deep_supervision": cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION,
        }

    @classmethod
    def build_predictor(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
        queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
        classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if queries != classes:
            raise ValueError(
                "PerPixelBaselinePlusHead has one query per class: set MODEL.MASK_FORMER."
                f"NUM_OBJECT_QUERIES, which is {queries}, to MODEL.SEM_SEG_HEAD.NUM_CLASSES, "
                f"which is {classes}"
            )
        _, width = transformer_source(cfg, input_shape)
        return build_transformer_decoder(cfg, width, mask_classification=False)

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        every_layer = every_layer and self.deep_supervision
        pixels, predictions = decode(self, features, 1, every_layer)
        classes = list(self.predictor.mask_embed(predictions.queries))  # L times (B, C, D)
        return PixelPredictions(pixels.mask_features, classes, None, coarsest(pixels))

    def class_embedding(self) -> Tensor:
        return self.predictor.query_embed.weight  # (C, D)


def coarsest(pixels: PixelFeatures) -> Tensor:
    """The coarsest map: (B, D, h, w)."""
    return pixels.scales[0] if pixels.encoded is None else pixels.encoded
