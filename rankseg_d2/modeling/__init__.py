"""The models. Importing registers them under upstream's names in detectron2's registries."""

from . import backbone, head, maskformer, per_pixel, rankseg

__all__ = ["backbone", "head", "maskformer", "per_pixel", "rankseg"]
