"""UPerNet (Xiao et al., ECCV 2018): a pyramid of pooled maps on top of a feature pyramid."""

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
from ..results.resizing import resize
from .convolution import conv_norm_relu, pixel_classifier, pooled_conv
from .head import PixelHead


@register(SEM_SEG_HEADS_REGISTRY)
class UPerNetHead(PixelHead):
    """Levels of any sizes -> pixels as fine as the first level, and a linear classifier."""

    any_size = True

    @configurable
    def __init__(
        self,
        input_shape: Sequence[tuple[str, ShapeSpec]],
        *,
        channels: int,
        norm: str,
        dropout: float,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        **options: Any,
    ):
        """
        Args:
            input_shape: the levels' names and shapes, fine to coarse.
            channels: of every convolution.
            pool_scales: the coarsest level is averaged over so many cells squared, each in turn.
        """
        super().__init__(**options)
        self.in_features = [name for name, _ in input_shape]
        self.pool_scales = tuple(pool_scales)
        self.dropout = dropout
        *widths, coarsest = [shape.channels for _, shape in input_shape]
        self.pooled_convs = nn.ModuleList(
            conv_norm_relu(coarsest, channels, 1, norm) for _ in self.pool_scales
        )
        width = coarsest + channels * len(self.pool_scales)
        self.pyramid_conv = conv_norm_relu(width, channels, 3, norm)
        self.lateral_convs = nn.ModuleList(
            conv_norm_relu(width, channels, 1, norm) for width in widths
        )
        self.output_convs = nn.ModuleList(
            conv_norm_relu(channels, channels, 3, norm) for _ in widths
        )
        self.fuse_conv = conv_norm_relu(channels * len(input_shape), channels, 3, norm)
        self.predictor = pixel_classifier(channels, self.num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        levels = by_stride(input_shape, head.IN_FEATURES)
        return super().from_config(cfg, input_shape) | {
            "input_shape": levels,
            "channels": head.CONVS_DIM,
            "norm": head.NORM,
            "dropout": head.DROPOUT,
            "stride": levels[0][1].stride,
            "coarse_width": levels[-1][1].channels,
            "class_width": head.CONVS_DIM,
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> pixels, classes, and the coarsest level as it is."""
        # The wide convolutions of this head are slower with the channels last.
        levels = [features[name].contiguous() for name in self.in_features]
        pixels = F.dropout2d(self.fuse(levels), self.dropout, self.training)
        classes = [self.class_embedding()[None]]  # (1, C, D)
        return PixelPredictions(pixels, classes, self.predictor.bias, levels[-1])

    def class_embedding(self) -> Tensor:
        return self.predictor.weight.flatten(1)  # (C, D)

    def fuse(self, levels: list[Tensor]) -> Tensor:
        """Levels (B, C, h, w), fine to coarse -> (B, D, h, w) of the finest."""
        *finer, coarsest = levels
        maps = [conv(level) for conv, level in zip(self.lateral_convs, finer, strict=True)]
        maps.append(self.pool(coarsest))
        for i in range(len(maps) - 2, -1, -1):  # from coarse to fine
            maps[i] = maps[i] + resize(maps[i + 1], maps[i].shape[-2:])
        maps[:-1] = [conv(x) for conv, x in zip(self.output_convs, maps[:-1], strict=True)]
        maps = [resize(x, maps[0].shape[-2:]) for x in maps]
        return self.fuse_conv(torch.cat(maps, dim=1))

    def pool(self, x: Tensor) -> Tensor:
        """The coarsest level beside its averages over regions: (B, C, h, w) -> (B, D, h, w)."""
        maps = [x]
        for scale, conv in zip(self.pool_scales, self.pooled_convs, strict=True):
            maps.append(resize(pooled_conv(conv, x, scale), x.shape[-2:]))
        return self.pyramid_conv(torch.cat(maps, dim=1))
