"""The models. Importing registers them under upstream's names in detectron2's registries."""

from . import backbone, condinst, eomt_head, head, meta_arch, pixel_heads

__all__ = ["backbone", "condinst", "eomt_head", "head", "meta_arch", "pixel_heads"]
