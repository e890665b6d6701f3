from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .resnet import (
    BasicStem,
    BottleneckBlock,
    ResNet,
    ResNetBlockBase,
    build_resnet_backbone,
    make_stage,
)

__all__ = [
    "BACKBONE_REGISTRY", "Backbone", "BasicStem", "BottleneckBlock", "ResNet", "ResNetBlockBase",
    "build_backbone", "build_resnet_backbone", "make_stage",
]
