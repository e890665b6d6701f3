"""The models. Importing registers them under upstream's names in detectron2's registries."""

from . import backbone, head
from .meta_arch import mask_classification as maskformer
from .meta_arch import rankseg
from .pixel_heads import per_pixel_baseline as per_pixel

__all__ = ["backbone", "head", "maskformer", "per_pixel", "rankseg"]
