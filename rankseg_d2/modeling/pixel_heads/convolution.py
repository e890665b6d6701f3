"""The convolutions of which the published pixel heads are made."""

from detectron2.layers import Conv2d, get_norm
from detectron2.utils.comm import get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from ..pooling import average_cells


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


def pooled_conv(conv: Conv2d, x: Tensor, cells: int) -> Tensor:
    """The averages of so many regions squared through a `conv_norm_relu`: (B, D', cells, cells)."""
    x, norm = average_cells(x, cells), conv.norm
    learns = isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training
    if learns and x[:, 0].numel() == get_world_size() == 1:
        raise ValueError(
            "a batch norm of pooled maps cannot learn from one image in a step; raise "
            "SOLVER.IMS_PER_BATCH to 2 or more, or set MODEL.SEM_SEG_HEAD.NORM to GN"
        )
    return conv(x)


def pixel_classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """(B, D, h, w) -> (B, C, h, w): a linear classifier with small weights."""
    predictor = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.normal_(predictor.weight, std=0.01)
    nn.init.zeros_(predictor.bias)
    return predictor
