"""Heads of a PixelClassifier: features of pixels, and embeddings of classes."""

from .deeplab import ASPPHead
from .per_pixel_baseline import PerPixelBaselineHead, PerPixelBaselinePlusHead
from .segformer import SegFormerConvHead, SegFormerHead

__all__ = [
    "ASPPHead",
    "PerPixelBaselineHead",
    "PerPixelBaselinePlusHead",
    "SegFormerConvHead",
    "SegFormerHead",
]
