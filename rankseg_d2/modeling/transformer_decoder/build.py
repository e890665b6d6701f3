"""The transformer decoders that a config can name."""

from detectron2.utils.registry import Registry

from ...errors import unknown_name
from ..attention import checkpointed
from ..family import is_mask2former

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_DECODER")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders: called with (cfg, in_channels, mask_classification). They have `num_layers`,
`class_embed` (a linear layer) if they classify masks, and give `Predictions`.
"""

MASKED_ATTENTION, STANDARD = "MultiScaleMaskedTransformerDecoder", "StandardTransformerDecoder"
# With T frames as an argument, one decoder serves images and clips: upstream's video name is kept.
SAME_AS = {f"Video{MASKED_ATTENTION}": MASKED_ATTENTION}


def build_transformer_decoder(cfg, in_channels: int, mask_classification: bool = True):
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
    decoder = TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)
    return checkpointed(decoder, options.USE_CHECKPOINT)


def decoder_name(cfg) -> str:
    """The decoder's registered name.

    MaskFormer's own configs do not have the key, whose default is Mask2Former's decoder.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    name = SAME_AS.get(name, name)
    return STANDARD if name == MASKED_ATTENTION and not is_mask2former(cfg) else name
