"""Transformer decoders: from pixel features to query features and their masks."""

from .build import TRANSFORMER_DECODER_REGISTRY, build_transformer_decoder
from .masked_attention import MultiScaleMaskedTransformerDecoder
from .standard import StandardTransformerDecoder

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "StandardTransformerDecoder",
    "build_transformer_decoder",
]
