"""DeepLabV3's head, a pyramid of dilated convolutions: a head of a PixelClassifier."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..outputs import PixelPredictions
from ..pixel_decoder.build import by_stride
from ..registering import register
from .convolution import conv_norm_relu, pixel_classifier, pooled_conv
from .head import PixelHead


@register(SEM_SEG_HEADS_REGISTRY)
class ASPPHead(PixelHead):
    """A spatial pyramid of the backbone's last level, and a linear classifier of its pixels.

    A multi-label head reads the backbone's last level.
    """

    @configurable
    def __init__(
        self,
        in_feature: str,
        in_channels: int,
        *,
        channels: int,
        dilations: Sequence[int],
        dropout: float,
        norm: str,
        **options: Any,
    ):
        super().__init__(coarse_width=in_channels, class_width=channels, **options)
        self.in_feature, self.dropout = in_feature, dropout
        self.pyramid = Pyramid(in_channels, channels, dilations, norm)
        self.bottleneck = conv_norm_relu(self.pyramid.channels, channels, 3, norm)
        self.predictor = pixel_classifier(channels, self.num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        name, level = by_stride(input_shape, head.IN_FEATURES)[-1]
        return super().from_config(cfg, input_shape) | {
            "in_feature": name,
            "in_channels": level.channels,
            "stride": level.stride,
            "channels": head.CONVS_DIM,
            "dilations": head.ASPP_DILATIONS,
            "dropout": head.DROPOUT,
            "norm": head.NORM,
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> pixels, classes, and the last level."""
        coarse = features[self.in_feature]
        pixels = self.bottleneck(self.pyramid(coarse))
        pixels = F.dropout2d(pixels, self.dropout, self.training)
        classes, bias = [self.class_embedding()[None]], self.predictor.bias  # (1, C, D), (C,)
        return PixelPredictions(pixels, classes, bias, coarse)

    def class_embedding(self) -> Tensor:
        return self.predictor.weight.flatten(1)  # (C, D)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: the mean of a map, and its surroundings at several scales."""

    def __init__(self, in_channels: int, channels: int, dilations: Sequence[int], norm: str):
        super().__init__()
        self.pool = conv_norm_relu(in_channels, channels, 1, norm)
        self.branches = nn.ModuleList([conv_norm_relu(in_channels, channels, 1, norm)])
        for dilation in dilations:
            self.branches.append(conv_norm_relu(in_channels, channels, 3, norm, dilation))
        self.channels = channels * (1 + len(self.branches))

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, h, w) -> (B, channels, h, w), the mean first."""
        pooled = pooled_conv(self.pool, x, 1).expand(-1, -1, *x.shape[-2:])
        return torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1)
