"""A feature pyramid from one map (Li et al., ViTDet, ECCV 2022), for models without levels."""

import math

from detectron2.layers import get_norm
from torch import nn

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # of the levels


def change_stride(channels: int, stride: int, new_stride: int) -> tuple[nn.Module, int]:
    """The layers that bring a map to another stride, both powers of 2, and their channels out.

    Coarser maps are max pooled, and their sides rounded up; each doubling of the resolution is a
    transposed convolution that halves the channels.
    """
    if new_stride > stride:
        return nn.MaxPool2d(new_stride // stride, ceil_mode=True), channels
    layers = []
    for _ in range(int(math.log2(stride // new_stride))):
        if layers:
            layers += [get_norm("LN", channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return nn.Sequential(*layers), channels
