"""A fully convolutional head on an earlier level, whose loss helps the backbone in training."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import conv_norm_relu, pixel_classifier


class AuxiliaryHead(nn.Module):
    """3 x 3 convolution, dropout and classifier: features by name -> logits (B, C, h, w)."""

    def __init__(
        self,
        in_feature: str,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        weight: float = 0.4,
        dropout: float = 0.1,
        norm: str = "SyncBN",
    ):
        super().__init__()
        self.in_feature, self.weight, self.dropout = in_feature, weight, dropout
        self.conv = conv_norm_relu(in_channels, channels, 3, norm)
        self.predictor = pixel_classifier(channels, num_classes)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> "AuxiliaryHead | None":
        """The head of MODEL.SEM_SEG_HEAD.AUXILIARY; None without a level for it."""
        head = cfg.MODEL.SEM_SEG_HEAD
        options = head.AUXILIARY
        if not options.IN_FEATURE:
            return None
        if options.IN_FEATURE not in input_shape:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE is {options.IN_FEATURE}, but the "
                f"backbone gives {', '.join(input_shape)}; choose one of these, or leave it empty"
            )
        return cls(
            options.IN_FEATURE,
            input_shape[options.IN_FEATURE].channels,
            head.NUM_CLASSES,
            options.CHANNELS,
            options.WEIGHT,
            head.DROPOUT,
            head.NORM,
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        x = self.conv(features[self.in_feature])
        return self.predictor(F.dropout2d(x, self.dropout, self.training))
