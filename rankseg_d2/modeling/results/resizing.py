"""Masks at other sizes: of the network's input, of the image in it, of the results."""

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ...dtypes import at_least_float

PARTS = 4  # masks are enlarged in this many parts, to save temporary memory


class Sizes(NamedTuple):
    """Three sizes (height, width)."""

    padded: tuple[int, int]  # of the network's input
    image: tuple[int, int]  # of the sample in it
    output: tuple[int, int]  # of the results


def part_size(num_maps: int) -> int:
    """How many masks to enlarge at a time if memory must hold `num_maps` large maps anyway."""
    return max(1, -(-num_maps // PARTS))


def probability_maps(masks: Tensor, sizes: Sizes, resize_first: bool = True) -> Tensor:
    """Probabilities at the output's size: logits (N, T, h, w) -> (N, T, H, W)."""
    if resize_first:
        return to_output(to_padded(masks, sizes), sizes).sigmoid()
    return to_output(to_padded(masks, sizes).sigmoid(), sizes)


def to_padded(masks: Tensor, sizes: Sizes) -> Tensor:
    """Mask logits at the size of the network's input."""
    return resize(at_least_float(masks), sizes.padded)


def to_output(maps: Tensor, sizes: Sizes) -> Tensor:
    """Maps of the network's input, without its padding, at the output's size."""
    height, width = sizes.image
    return resize(maps[..., :height, :width], sizes.output)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, T, h, w) at another size, bilinearly: (N, T, H, W)."""
    if maps.shape[-2:] == size:
        return maps
    planes = maps.flatten(0, 1)[:, None]  # so no bit depends on the number of frames
    planes = F.interpolate(planes, size, mode="bilinear", align_corners=False)
    return planes.view(*maps.shape[:2], *size)


def resize_classes(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The same for class maps (B, K, h, w); in memory the K values of a pixel are neighbours.

    So what reads all values of a pixel, the best class or a loss, is several times as fast.
    """
    if maps.shape[-2:] == size:
        return maps
    count = maps.shape[:2].numel() * math.prod(size)
    if not 0 < count < 2**31:  # no class, or too many values for this order on GPUs
        return resize(maps, size)
    return resize_features(maps, size)


def resize_features(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The same for features (B, D, h, w), in the order in which convolutions are fast."""
    if maps.shape[-2:] == size:
        return maps
    rows = maps.permute(0, 2, 3, 1)  # (B, h, w, D)
    rows = rows.reshape(-1).view(rows.shape)  # with the strides by which PyTorch sees this order
    maps = rows.permute(0, 3, 1, 2)
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
