"""The segmentation head: pixel decoder, then transformer decoder."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..errors import unknown_name
from .family import SCALES
from .outputs import MaskPredictions
from .pixel_decoder import PixelFeatures, build_pixel_decoder
from .pixel_decoder.fpn import NUM_SCALES
from .registering import register
from .transformer_decoder import build_transformer_decoder
from .transformer_decoder.build import MASKED_ATTENTION, STANDARD, decoder_name

# Values of TRANSFORMER_IN_FEATURE beside SCALES and the names of the backbone's features.
ENCODED, PIXELS = "transformer_encoder", "pixel_embedding"


@register(SEM_SEG_HEADS_REGISTRY)
class MaskFormerHead(nn.Module):
    """Backbone features in, query features and mask logits out."""

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        pixel_decoder: nn.Module,
        predictor: nn.Module,
        transformer_in_feature: str,
    ):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        source, width = transformer_source(cfg, input_shape)
        return {
            "input_shape": input_shape,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": build_transformer_decoder(cfg, width),
            "transformer_in_feature": source,
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> MaskPredictions:
        """Features (B·T, C, h, w) by name -> the predictions for B clips of T frames."""
        return decode(self, features, num_frames, every_layer)[1]


def decode(
    head: nn.Module, features: dict[str, Tensor], num_frames: int, every_layer: bool
) -> tuple[PixelFeatures, MaskPredictions]:
    """Run a head's `pixel_decoder`, then its transformer decoder, `predictor`."""
    pixels = head.pixel_decoder(features)
    sources = {SCALES: pixels.scales, ENCODED: pixels.encoded, PIXELS: pixels.mask_features}
    chosen = (sources | features)[head.transformer_in_feature]
    return pixels, head.predictor(chosen, pixels.mask_features, num_frames, every_layer)


def transformer_source(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> tuple[str, int]:
    """The name and the channels of the transformer decoder's input."""
    key = "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE"
    source = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    head = cfg.MODEL.SEM_SEG_HEAD
    widths = {SCALES: head.CONVS_DIM, ENCODED: head.CONVS_DIM, PIXELS: head.MASK_DIM}
    widths |= {name: shape.channels for name, shape in input_shape.items()}
    if source not in widths:
        raise unknown_name(key, source, widths)
    if source == SCALES and decoder_name(cfg) == STANDARD:
        raise ValueError(
            f"{key} {SCALES} is three maps, but {STANDARD} reads one; name one of the backbone's "
            f"features, or set MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME to {MASKED_ATTENTION}"
        )
    if source == SCALES and len(head.IN_FEATURES) < NUM_SCALES:
        raise ValueError(
            f"{key} {SCALES} needs three or more MODEL.SEM_SEG_HEAD.IN_FEATURES, but they are "
            f"{list(head.IN_FEATURES)}; the backbone has {list(input_shape)}"
        )
    if source == ENCODED and head.PIXEL_DECODER_NAME == "BasePixelDecoder":
        raise ValueError(
            f"{key} {ENCODED} needs a pixel decoder with an encoder; BasePixelDecoder has "
            "none. Set MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME to TransformerEncoderPixelDecoder"
        )
    return source, widths[source]
