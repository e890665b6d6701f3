"""The segmentation head: pixel decoder, then transformer decoder."""

from detectron2.config import configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..errors import unknown_name
from .pixel_decoder import build_pixel_decoder
from .register import register
from .transformer_decoder import Predictions, build_transformer_decoder

# TRANSFORMER_IN_FEATURE: what the transformer decoder reads, next to the names of the backbone's
# own features.
SCALES, ENCODED, PIXELS = "multi_scale_pixel_decoder", "transformer_encoder", "pixel_embedding"


@register(SEM_SEG_HEADS_REGISTRY)
class MaskFormerHead(nn.Module):
    """Backbone features in, query features and mask logits out."""

    _version = 2

    @configurable
    def __init__(self, input_shape, *, pixel_decoder, predictor, transformer_in_feature: str):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg, input_shape):
        source = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        widths = {
            SCALES: cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM,
            ENCODED: cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM,
            PIXELS: cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
        } | {name: shape.channels for name, shape in input_shape.items()}
        if source not in widths:
            raise unknown_name("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", source, widths)
        return {
            "input_shape": input_shape,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": build_transformer_decoder(cfg, widths[source]),
            "transformer_in_feature": source,
        }

    def forward(self, features: dict[str, Tensor], num_frames: int = 1) -> Predictions:
        """Features (B·T, C, h, w) by name -> the predictions for B clips of T frames."""
        pixels = self.pixel_decoder(features)
        source = {SCALES: pixels.scales, ENCODED: pixels.encoded, PIXELS: pixels.mask_features}
        chosen = (source | features)[self.transformer_in_feature]
        return self.predictor(chosen, pixels.mask_features, num_frames)
