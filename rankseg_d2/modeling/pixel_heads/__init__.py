"""Heads of a PixelClassifier: features of pixels, and embeddings of classes."""

from .deeplab import ASPPHead
from .encnet import ContextEncoding, EncHead
from .per_pixel_baseline import PerPixelBaselineHead, PerPixelBaselinePlusHead
from .segformer import SegFormerConvHead, SegFormerHead
from .segmenter import SegmenterESSNetHead, SegmenterLinearHead, SegmenterMaskHead
from .upernet import UPerNetHead

__all__ = [
    "ASPPHead",
    "ContextEncoding",
    "EncHead",
    "PerPixelBaselineHead",
    "PerPixelBaselinePlusHead",
    "SegFormerConvHead",
    "SegFormerHead",
    "UPerNetHead",
    "SegmenterESSNetHead",
    "SegmenterLinearHead",
    "SegmenterMaskHead",
]
