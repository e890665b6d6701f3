"""Model parts that a config names, and the functions that build them."""

from ..layers import ShapeSpec
from .backbone import (
    BACKBONE_REGISTRY,
    Backbone,
    ResNet,
    ResNetBlockBase,
    build_backbone,
    build_resnet_backbone,
    make_stage,
)
from .meta_arch import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    SemanticSegmentor,
    build_model,
    build_sem_seg_head,
)
from .postprocessing import detector_postprocess

__all__ = [
    "BACKBONE_REGISTRY", "Backbone", "META_ARCH_REGISTRY", "ResNet", "ResNetBlockBase",
    "SEM_SEG_HEADS_REGISTRY", "SemanticSegmentor", "ShapeSpec", "build_backbone", "build_model",
    "build_resnet_backbone", "build_sem_seg_head", "detector_postprocess", "make_stage",
]
