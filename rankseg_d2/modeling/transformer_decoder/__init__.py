"""Transformer decoders: from pixel features to query features and their masks."""

from .build import TRANSFORMER_DECODER_REGISTRY, build_transformer_decoder
from .masked_attention import MultiScaleMaskedTransformerDecoder
from .predictions import Predictions
from .standard import StandardTransformerDecoder

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "Predictions",
    "StandardTransformerDecoder",
    "build_transformer_decoder",
]
