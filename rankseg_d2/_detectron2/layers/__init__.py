"""Layers that models are made of."""

from .batch_norm import FrozenBatchNorm2d, LayerNorm, get_norm
from .blocks import CNNBlockBase
from .shape_spec import ShapeSpec
from .wrappers import BatchNorm2d, Conv2d, ConvTranspose2d, Linear, cat, interpolate

__all__ = [
    "BatchNorm2d", "CNNBlockBase", "Conv2d", "ConvTranspose2d", "FrozenBatchNorm2d", "LayerNorm",
    "Linear", "ShapeSpec", "cat", "get_norm", "interpolate",
]
