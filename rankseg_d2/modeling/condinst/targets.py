"""Which object each location learns (FCOS, Tian et al., ICCV 2019)."""

from typing import NamedTuple

import torch
from torch import Tensor

NONE = -1  # the object of a location that learns none


class Assignment(NamedTuple):
    """What the P locations of an image learn."""

    objects: Tensor  # (P,) number of the object, or NONE
    distances: Tensor  # (P, 4) to the sides of its box: left, top, right, bottom
    centerness: Tensor  # (P,) from 0 to 1; both are 0 without an object


def assign(
    locations: Tensor, strides: Tensor, ranges: Tensor, boxes: Tensor, radius: float
) -> Assignment:
    """The smallest object that is around a location, near enough, and of its level's size.

    Args:
        locations, strides: (P, 2) and (P,).
        ranges: (P, 2), between which the largest distance to a side of the box must be.
        boxes: (N, 4) x0, y0, x1, y1; those without area are of no object.
        radius: how many strides, at most, a location is from the centre of the box, in x and in y.
    """
    if not len(boxes):
        nothing = locations.new_zeros(len(locations))
        return Assignment(nothing.long() + NONE, nothing[:, None].expand(-1, 4), nothing)
    # (P, N, 4) from each location to the sides of each box
    sides = torch.cat([locations[:, None] - boxes[:, :2], boxes[:, 2:] - locations[:, None]], -1)
    largest = sides.amax(-1)  # (P, N)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    offsets = (locations[:, None] - centers).abs().amax(-1)  # (P, N)
    fits = (sides.amin(-1) > 0) & (offsets < radius * strides[:, None])
    fits &= (largest >= ranges[:, :1]) & (largest <= ranges[:, 1:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)  # (N,)
    areas = torch.where(fits, areas, torch.inf)  # (P, N)
    smallest, objects = areas.min(1)
    is_none = smallest.isinf()
    distances = sides[torch.arange(len(objects), device=objects.device), objects]  # (P, 4)
    distances = distances.masked_fill(is_none[:, None], 0)
    return Assignment(objects.masked_fill(is_none, NONE), distances, centerness(distances))


def centerness(distances: Tensor) -> Tensor:
    """How near to the centre of its box a location is: (..., 4) -> (...), 1 in the centre."""
    pairs = torch.stack([distances[..., 0::2], distances[..., 1::2]], -2)  # (..., x or y, 2)
    shares = pairs.amin(-1) / pairs.amax(-1).clamp(min=1e-6)
    return shares.prod(-1).clamp(min=0).sqrt()


def size_ranges(levels: Tensor, sizes: list[float]) -> Tensor:
    """The sizes of objects that the level of each location learns: (P,) -> (P, 2)."""
    bounds = torch.tensor([0.0, *sizes, torch.inf], device=levels.device)
    return torch.stack([bounds[levels], bounds[levels + 1]], 1)


def boxes_of(locations: Tensor, distances: Tensor) -> Tensor:
    """Boxes x0, y0, x1, y1 by the distances of their sides: (..., 2), (..., 4) -> (..., 4)."""
    return torch.cat([locations - distances[..., :2], locations + distances[..., 2:]], -1)
