"""The models that MODEL.META_ARCHITECTURE can name; importing registers them. See base.py."""

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ..registering import register
from .base import Segmentation
from .condinst import CondInst
from .eomt import EoMT
from .mask_classification import MaskFormer, VideoMaskFormer
from .pixel_classification import PixelClassifier
from .rankseg import (
    RankSegEoMT,
    RankSegMaskFormer,
    RankSegPixelClassifier,
    RankSegVideoMaskFormer,
)

__all__ = [
    "CondInst",
    "EoMT",
    "MaskFormer",
    "PixelClassifier",
    "RankSegEoMT",
    "RankSegMaskFormer",
    "RankSegPixelClassifier",
    "RankSegVideoMaskFormer",
    "Segmentation",
    "VideoMaskFormer",
    "model_class",
]

WITHOUT_RANKING = (MaskFormer, VideoMaskFormer, EoMT, PixelClassifier, CondInst)
WITH_RANKING = (RankSegMaskFormer, RankSegVideoMaskFormer, RankSegEoMT, RankSegPixelClassifier)
CLASSES = {model.__name__: model for model in (*WITHOUT_RANKING, *WITH_RANKING)}


def model_class(cfg: CfgNode) -> type[Segmentation] | None:
    """The class that MODEL.META_ARCHITECTURE and MODEL.RANKSEG name; None if it is not ours."""
    name = cfg.MODEL.META_ARCHITECTURE
    options = cfg.MODEL.get("RANKSEG")
    if options and (options.FLAG or options.USE_GT):
        return CLASSES.get(f"RankSeg{name}", CLASSES.get(name))
    return CLASSES.get(name)


def _register(name: str) -> None:
    def build(cfg: CfgNode) -> Segmentation:
        return model_class(cfg)(cfg)

    build.__name__ = name
    register(META_ARCH_REGISTRY)(build)


for _name in CLASSES:
    _register(_name)
