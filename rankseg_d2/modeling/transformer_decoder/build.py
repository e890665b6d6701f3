"""The transformer decoders that a config can name."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from ...errors import unknown_name
from ..family import is_mask2former

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_DECODER")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders: called with (cfg, in_channels, mask_classification). They have `num_layers`,
`class_embed` (a linear layer) if they classify masks, and return `MaskPredictions`.
"""

MASKED_ATTENTION, STANDARD = "MultiScaleMaskedTransformerDecoder", "StandardTransformerDecoder"
# One decoder serves images and clips; upstream has a second name for clips.
_SAME_AS = {f"Video{MASKED_ATTENTION}": MASKED_ATTENTION}


def build_transformer_decoder(
    cfg: CfgNode, in_channels: int, mask_classification: bool = True
) -> nn.Module:
    """The decoder of MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME."""
    name = decoder_name(cfg)
    if name not in TRANSFORMER_DECODER_REGISTRY:
        known = [name for name, _ in TRANSFORMER_DECODER_REGISTRY]
        raise unknown_name("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", name, known)
    options = cfg.MODEL.MASK_FORMER
    if options.DEC_LAYERS < 1:
        raise ValueError(
            f"MODEL.MASK_FORMER.DEC_LAYERS must be at least 1, but is {options.DEC_LAYERS}; "
            "MaskFormer has 6, Mask2Former 10"
        )
    if options.NHEADS < 1 or options.HIDDEN_DIM % options.NHEADS:
        raise ValueError(
            f"MODEL.MASK_FORMER.HIDDEN_DIM, {options.HIDDEN_DIM}, must be a multiple of "
            f"MODEL.MASK_FORMER.NHEADS, which is {options.NHEADS}; upstream has 256 and 8"
        )
    return TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)


def shared_options(cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict[str, Any]:
    """The arguments that both decoders take."""
    options = cfg.MODEL.MASK_FORMER
    return {
        "in_channels": in_channels,
        "mask_classification": mask_classification,
        "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        "hidden_dim": options.HIDDEN_DIM,
        "num_queries": options.NUM_OBJECT_QUERIES,
        "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
        "enforce_input_project": options.ENFORCE_INPUT_PROJ,
    }


def decoder_name(cfg: CfgNode) -> str:
    """The decoder's registered name.

    MaskFormer's own configs do not have the key, whose default is Mask2Former's decoder.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    name = _SAME_AS.get(name, name)
    return STANDARD if name == MASKED_ATTENTION and not is_mask2former(cfg) else name
