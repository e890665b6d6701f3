"""The convolutions of which the published pixel heads are made."""

from detectron2.layers import Conv2d, get_norm
from torch import nn
from torch.nn import functional as F


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, dilation: int = 1
) -> Conv2d:
    """(B, D, h, w) -> (B, D', h, w): convolution without bias, norm and ReLU."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        bias=False,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def pixel_classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """(B, D, h, w) -> (B, C, h, w): a linear classifier with small weights."""
    predictor = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.normal_(predictor.weight, std=0.01)
    nn.init.zeros_(predictor.bias)
    return predictor
