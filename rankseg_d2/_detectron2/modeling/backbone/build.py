from ...layers import ShapeSpec
from ...utils.registry import Registry
from ..lookup import find_registered
from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = "Makers of backbones: called with (cfg, ShapeSpec of the images)."


def build_backbone(cfg, input_shape: ShapeSpec | None = None) -> Backbone:
    """The backbone that MODEL.BACKBONE.NAME says, for images with a channel per PIXEL_MEAN."""
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    backbone = find_registered(BACKBONE_REGISTRY, "MODEL.BACKBONE.NAME", name)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f"MODEL.BACKBONE.NAME {name!r} made a {type(backbone)}, which is no subclass of "
            "detectron2.modeling.Backbone; derive it from that"
        )
    return backbone
