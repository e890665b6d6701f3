"""The pixel decoder that a config names."""

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ...errors import unknown_name

NAMES = ("BasePixelDecoder", "TransformerEncoderPixelDecoder", "MSDeformAttnPixelDecoder")


@dataclass(frozen=True)
class PixelFeatures:
    """What a pixel decoder returns; N = B·T frames."""

    mask_features: Tensor  # (N, D, H/4, W/4)
    scales: list[Tensor]  # three maps (N, D, h, w), coarse to fine
    encoded: Tensor | None  # the coarsest map after the transformer encoder; None without one


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The module of MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME."""
    head = cfg.MODEL.SEM_SEG_HEAD
    name = head.PIXEL_DECODER_NAME
    # The registry has heads too, and a head cannot be its own pixel decoder.
    if name not in SEM_SEG_HEADS_REGISTRY or name == head.NAME:
        raise unknown_name("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", name, NAMES)
    return SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)


def by_stride(
    input_shape: dict[str, ShapeSpec], names: Sequence[str]
) -> list[tuple[str, ShapeSpec]]:
    """(name, shape) of the wanted features, fine to coarse; a missing one is an error."""
    missing = [name for name in names if name not in input_shape]
    if missing:
        raise unknown_name("MODEL.SEM_SEG_HEAD.IN_FEATURES", missing[0], input_shape)
    return sorted(((name, input_shape[name]) for name in names), key=lambda item: item[1].stride)
