"""The branches of CondInst's head: towers of FCOS, the tower of kernels, mask features."""

import math
from collections.abc import Callable

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from .maps import aligned_upsample, fit

PRIOR = 0.01  # probability of a class before any training
_LARGEST = 8.0  # logarithm of a distance in strides: more than any image has
_KERNEL_CONVS, _MASK_CONVS = 3, 4


class FCOSTowers(nn.Module):
    """A level (B, D, h, w) -> class logits (B, C, h, w), distances in strides (B, 4, h, w), and
    centerness logits (B, 1, h, w). All levels share the layers, but each has a scale of its own.
    """

    def __init__(self, dim: int, num_convs: int, norm: str, num_classes: int, num_levels: int):
        super().__init__()
        self.cls_tower = tower(dim, dim, num_convs, norm)
        self.box_tower = tower(dim, dim, num_convs, norm)
        self.cls_logits = conv(dim, num_classes)
        self.box_distances = conv(dim, 4)
        self.centerness = conv(dim, 1)
        self.scales = nn.Parameter(torch.ones(num_levels))
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        box = self.box_tower(x)
        distances = (self.box_distances(box).float() * self.scales[level]).clamp(max=_LARGEST).exp()
        return self.cls_logits(self.cls_tower(x)), distances, self.centerness(box)


class KernelTower(nn.Module):
    """A level (B, D, h, w) -> the parameters of the dynamic layers at each cell (B, D', h, w).

    Two more channels say where a cell is in the map, from -1 to 1 (CoordConv).
    """

    def __init__(self, dim: int, norm: str, num_parameters: int):
        super().__init__()
        self.tower = tower(dim + 2, dim, _KERNEL_CONVS, norm)
        self.kernels = conv(dim, num_parameters)

    def forward(self, x: Tensor) -> Tensor:
        kind = {"device": x.device, "dtype": x.dtype}
        down, right = (torch.linspace(-1, 1, side, **kind) for side in x.shape[-2:])
        places = torch.stack(torch.meshgrid(right, down, indexing="xy"))  # (2, h, w)
        return self.kernels(self.tower(torch.cat([x, places.expand(len(x), -1, -1, -1)], 1)))


class MaskNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics for a batch of one cell.

    One value has no variance, so torch refuses it in training; the coarsest level of one image of
    32 x 32 pixels is one cell.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class MaskBranch(nn.Module):
    """Three levels (B, D, h, w), the finest first -> mask features (B, D', h, w) of its size."""

    def __init__(self, dim: int, width: int, mask_dim: int):
        super().__init__()
        self.refine = nn.ModuleList(tower(dim, width, 1, MaskNorm) for _ in range(3))
        self.tower = tower(width, width, _MASK_CONVS, MaskNorm)
        self.project = nn.Conv2d(width, mask_dim, kernel_size=1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = self.refine[0](levels[0])
        for number, (layer, level) in enumerate(zip(self.refine[1:], levels[1:], strict=True), 1):
            x = x + fit(aligned_upsample(layer(level), 2**number), tuple(x.shape[-2:]))
        return self.project(self.tower(x))


def tower(
    dim_in: int, dim: int, num_convs: int, norm: str | Callable[[int], nn.Module]
) -> nn.Sequential:
    """Convolutions of 3 x 3, each with a norm and ReLU."""
    layers: list[nn.Module] = []
    for number in range(num_convs):
        one = conv(dim_in if number == 0 else dim, dim, bias=not norm)
        layers += [one, get_norm(norm, dim) or nn.Identity(), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def conv(dim_in: int, dim: int, bias: bool = True) -> nn.Conv2d:
    """A convolution of 3 x 3 with small first weights, as detectors have it."""
    layer = nn.Conv2d(dim_in, dim, 3, padding=1, bias=bias)
    nn.init.normal_(layer.weight, std=0.01)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
