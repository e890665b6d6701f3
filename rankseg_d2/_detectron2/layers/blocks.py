"""Blocks of convolutions."""

from fvcore.nn import weight_init
from torch import Tensor, nn

from .batch_norm import FrozenBatchNorm2d, get_norm
from .wrappers import Conv2d


class CNNBlockBase(nn.Module):
    """A block with a known number of channels in and out, and a stride; it can be frozen."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> "CNNBlockBase":
        """Train nothing in this block any more: neither parameters nor batch statistics."""
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution in each channel alone (`depthwise`), then a 1x1 across them (`pointwise`)."""

    def __init__(
        self, in_channels, out_channels, kernel_size=3, padding=1, dilation=1, *,
        norm1=None, activation1=None, norm2=None, activation2=None,
    ):
        super().__init__()
        self.depthwise = Conv2d(
            in_channels, in_channels, kernel_size, padding=padding, dilation=dilation,
            groups=in_channels, bias=not norm1, norm=get_norm(norm1, in_channels),
            activation=activation1,
        )
        self.pointwise = Conv2d(
            in_channels, out_channels, 1, bias=not norm2, norm=get_norm(norm2, out_channels),
            activation=activation2,
        )
        weight_init.c2_msra_fill(self.depthwise)
        weight_init.c2_msra_fill(self.pointwise)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))
