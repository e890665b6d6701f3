"""Pixel decoders: from a backbone's pyramid to per-pixel mask features."""

from .build import PixelFeatures, build_pixel_decoder
from .fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from .ms_deform_attn import MSDeformAttnPixelDecoder

__all__ = [
    "BasePixelDecoder",
    "MSDeformAttnPixelDecoder",
    "PixelFeatures",
    "TransformerEncoderPixelDecoder",
    "build_pixel_decoder",
]
