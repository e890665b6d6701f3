"""MaskFormer's pixel decoders: a feature pyramid, plain or with a transformer encoder on top."""

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...position_encoding import sine_position
from ..registering import register
from ..transformer import Transformer
from .build import PixelFeatures, by_stride

NUM_SCALES = 3


@register(SEM_SEG_HEADS_REGISTRY)
class BasePixelDecoder(nn.Module):
    """Top-down pyramid: each finer map is added to the coarser one, enlarged, and smoothed."""

    @configurable
    def __init__(
        self, input_shape: list[tuple[str, ShapeSpec]], *, conv_dim: int, mask_dim: int, norm: str
    ):
        super().__init__()
        self.in_features = [name for name, _ in input_shape]
        channels = [shape.channels for _, shape in input_shape]
        for number, width in enumerate(channels[:-1], start=1):
            self.add_module(f"adapter_{number}", conv_norm(width, conv_dim, 1, norm))
            self.add_module(f"layer_{number}", conv_norm(conv_dim, conv_dim, 3, norm, F.relu))
        self.add_coarsest(channels[-1], conv_dim, norm)
        self.mask_features = fill(Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1))

    def add_coarsest(self, channels: int, conv_dim: int, norm: str) -> None:
        name = f"layer_{len(self.in_features)}"
        self.add_module(name, conv_norm(channels, conv_dim, 3, norm, F.relu))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": by_stride(input_shape, head.IN_FEATURES),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def forward(self, features: dict[str, Tensor]) -> PixelFeatures:
        encoded = self.encode(features[self.in_features[-1]])
        coarsest = features[self.in_features[-1]] if encoded is None else encoded
        y = getattr(self, f"layer_{len(self.in_features)}")(coarsest)
        scales = [y]
        for number in range(len(self.in_features) - 1, 0, -1):
            lateral = getattr(self, f"adapter_{number}")(features[self.in_features[number - 1]])
            y = lateral + F.interpolate(y, lateral.shape[-2:], mode="nearest")
            y = getattr(self, f"layer_{number}")(y)
            scales.append(y)
        return PixelFeatures(self.mask_features(y), scales[:NUM_SCALES], encoded)

    def encode(self, coarsest: Tensor) -> Tensor | None:
        return None


@register(SEM_SEG_HEADS_REGISTRY)
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The same pyramid, with a transformer encoder on its coarsest map."""

    @configurable
    def __init__(
        self, input_shape: list[tuple[str, ShapeSpec]], *, transformer: nn.Module, **options: Any
    ):
        super().__init__(input_shape, **options)
        self.transformer = transformer

    def add_coarsest(self, channels: int, conv_dim: int, norm: str) -> None:
        self.input_proj = fill(Conv2d(channels, conv_dim, kernel_size=1))
        super().add_coarsest(conv_dim, conv_dim, norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = cfg.MODEL.MASK_FORMER
        transformer = Transformer(
            cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM,
            options.NHEADS,
            options.DIM_FEEDFORWARD,
            encoder_layers=cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            dropout=options.DROPOUT,
            pre_norm=options.PRE_NORM,
            use_checkpoint=options.USE_CHECKPOINT,
        )
        return super().from_config(cfg, input_shape) | {"transformer": transformer}

    def encode(self, coarsest: Tensor) -> Tensor:
        x = self.input_proj(coarsest)  # (N, D, h, w)
        height, width = x.shape[-2:]
        position = sine_position((1, height, width), x.shape[1], x.device).flatten(0, 2)  # (hw, D)
        x = x.flatten(2).transpose(1, 2)  # (N, hw, D)
        x = self.transformer.encoder(x, position.to(x.dtype))
        return x.transpose(1, 2).unflatten(2, (height, width))


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm: str,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> Conv2d:
    """Convolution, norm and activation; a bias only without a norm."""
    return fill(
        Conv2d(
            in_channels,
            out_channels,
            kernel_size=kernel,
            padding=kernel // 2,
            bias=norm == "",
            norm=get_norm(norm, out_channels),
            activation=activation,
        )
    )


def fill(conv: Conv2d) -> Conv2d:
    """Initialise as detectron2 does its feature pyramids."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
