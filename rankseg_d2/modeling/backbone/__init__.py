"""Backbones. Each registers under the name that MODEL.BACKBONE.NAME gives."""

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY

from ...errors import unknown_name
from .beit import BEiT
from .cswin import CSWinTransformer
from .mit import MixTransformer
from .resnet_deeplab import DeepLabStem, build_resnet_deeplab_backbone
from .semask import D2SeMaskSwinTransformer
from .swin import D2SwinTransformer
from .timm_backbone import TimmBackbone
from .vit import VisionTransformer
from .vit_adapter import BEiTAdapter, ViTAdapter
from .volo import VOLO

__all__ = [
    "VOLO",
    "BEiT",
    "CSWinTransformer",
    "BEiTAdapter",
    "D2SeMaskSwinTransformer",
    "D2SwinTransformer",
    "DeepLabStem",
    "MixTransformer",
    "TimmBackbone",
    "ViTAdapter",
    "VisionTransformer",
    "build_resnet_deeplab_backbone",
    "check_backbone",
]


def check_backbone(cfg: CfgNode) -> None:
    """Raise KeyError with the nearest names if MODEL.BACKBONE.NAME is not registered."""
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        known = [known for known, _ in BACKBONE_REGISTRY]
        raise unknown_name("MODEL.BACKBONE.NAME", name, known)
