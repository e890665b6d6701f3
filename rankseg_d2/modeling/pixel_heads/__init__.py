"""Heads of a PixelClassifier: features of pixels, and embeddings of classes."""

from .per_pixel_baseline import PerPixelBaselineHead, PerPixelBaselinePlusHead
from .segformer import SegFormerConvHead, SegFormerHead

__all__ = [
    "PerPixelBaselineHead",
    "PerPixelBaselinePlusHead",
    "SegFormerConvHead",
    "SegFormerHead",
]
