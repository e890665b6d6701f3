"""EncNet (Zhang et al., CVPR 2018): which classes an image has, said to each of its pixels."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...dtypes import at_least_float
from ..outputs import PixelPredictions
from ..pixel_decoder.build import by_stride
from ..registering import register
from ..results.resizing import resize
from .convolution import conv_norm_relu, pixel_classifier
from .head import PixelHead


class ContextEncoding(nn.Module):
    """A map whose channels are weighed by a code of the whole map, and which classes are present.

    With Segmenter it is between backbone and mask decoder; EncHead classifies its pixels.
    """

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, num_codes: int, norm: str
    ):
        super().__init__()
        self.conv = conv_norm_relu(in_channels, channels, 3, norm)
        self.project = conv_norm_relu(channels, channels, 1, norm)
        self.codebook = Codebook(num_codes, channels)
        self.code_norm = get_norm(norm, num_codes)
        self.gate = nn.Linear(channels, channels)
        self.presence = nn.Linear(channels, num_classes)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, in_channels: int, channels: int
    ) -> "ContextEncoding | None":
        """The module of MODEL.SEM_SEG_HEAD.ENCODING; None without codes."""
        head = cfg.MODEL.SEM_SEG_HEAD
        if not head.ENCODING.CODES:
            return None
        return cls(in_channels, channels, head.NUM_CLASSES, head.ENCODING.CODES, head.NORM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C_in, h, w) -> a map (B, C, h, w), and logits of classes (B, classes)."""
        return self.weigh(self.conv(x))

    def weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same of a map that the first convolution has made: (B, C, h, w)."""
        codes = self.codebook(self.project(x).flatten(2).mT)  # (B, K, C)
        code = F.relu(self.code_norm(codes[..., None])).mean(dim=1)[..., 0]  # (B, C)
        x = F.relu(x + x * self.gate(code).sigmoid()[..., None, None])
        return x, self.presence(code)


class Codebook(nn.Module):
    """Sums of the differences between features and the code words to which they belong."""

    def __init__(self, num_codes: int, channels: int):
        super().__init__()
        bound = (num_codes * channels) ** -0.5
        self.words = nn.Parameter(torch.empty(num_codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, N, C) -> (B, K, C), in float32 or better, without a tensor N x K x C."""
        with torch.autocast(x.device.type, enabled=False):
            x, words = at_least_float(x), at_least_float(self.words)
            distances = x.square().sum(-1, keepdim=True) - 2 * x @ words.mT + words.square().sum(-1)
            share = (self.scale * distances).softmax(dim=-1)  # (B, N, K)
            return share.mT @ x - share.sum(dim=1)[..., None] * words


@register(SEM_SEG_HEADS_REGISTRY)
class EncHead(PixelHead):
    """A context encoding of the backbone's last level, and a linear classifier of its pixels.

    Of several levels, the others are added to the last one before the encoding.
    """

    @configurable
    def __init__(
        self,
        input_shape: list[tuple[str, ShapeSpec]],
        *,
        channels: int,
        encoding: ContextEncoding,
        dropout: float,
        norm: str,
        **options: Any,
    ):
        """
        Args:
            input_shape: the levels' names and shapes, the last one at last.
        """
        super().__init__(**options)
        self.in_features, self.dropout = [name for name, _ in input_shape], dropout
        self.encoding = encoding
        self.lateral_convs = nn.ModuleList(
            conv_norm_relu(shape.channels, channels, 1, norm) for _, shape in input_shape[:-1]
        )
        if len(input_shape) > 1:
            self.fuse_conv = conv_norm_relu(channels * len(input_shape), channels, 3, norm)
        self.predictor = pixel_classifier(channels, self.num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        levels = by_stride(input_shape, head.IN_FEATURES)
        last = levels[-1][1]
        encoding = ContextEncoding.from_config(cfg, last.channels, head.CONVS_DIM)
        if encoding is None:
            raise ValueError(
                "MODEL.SEM_SEG_HEAD.ENCODING.CODES is 0, but EncHead needs code words; set it to "
                "32, as published"
            )
        return super().from_config(cfg, input_shape) | {
            "input_shape": levels,
            "channels": head.CONVS_DIM,
            "encoding": encoding,
            "dropout": head.DROPOUT,
            "norm": head.NORM,
            "stride": last.stride,
            "coarse_width": last.channels,
            "class_width": head.CONVS_DIM,
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> pixels, classes, the last level, and presence."""
        *others, coarse = [features[name] for name in self.in_features]
        pixels = self.encoding.conv(coarse)
        if others:
            maps = [conv(x) for conv, x in zip(self.lateral_convs, others, strict=True)]
            maps = [pixels, *(resize(x, pixels.shape[-2:]) for x in maps)]
            pixels = self.fuse_conv(torch.cat(maps, dim=1))
        pixels, presence = self.encoding.weigh(pixels)
        pixels = F.dropout2d(pixels, self.dropout, self.training)
        classes, bias = [self.class_embedding()[None]], self.predictor.bias  # (1, C, D), (C,)
        return PixelPredictions(pixels, classes, bias, coarse, presence=presence)

    def class_embedding(self) -> Tensor:
        return self.predictor.weight.flatten(1)  # (C, D)
