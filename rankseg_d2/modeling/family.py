"""Which family of mask classifiers a config describes: MaskFormer or Mask2Former."""

from detectron2.config import CfgNode

SCALES = "multi_scale_pixel_decoder"  # input of Mask2Former's transformer decoder: three maps


def is_mask2former(cfg: CfgNode) -> bool:
    """Whether the transformer decoder reads several scales, as Mask2Former's does.

    Upstream's configs of MaskFormer do not have Mask2Former's keys, whose defaults are
    Mask2Former's. MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is in the configs of both.
    """
    return cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE == SCALES
