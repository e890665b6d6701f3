"""Masks at points instead of everywhere. A point is (x, y) in [0, 1], outer edge to outer edge."""

import torch
import torch.nn.functional as F
from torch import Tensor


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values at points, zero outside: (N, H, W), (N, P, 2) -> (N, P).

    Points (P, 2) are shared by all maps.
    """
    grid = 2 * points.to(maps.dtype) - 1  # grid_sample counts from -1 to 1
    grid = grid.expand(len(maps), -1, -1)[:, None]  # (N, 1, P, 2)
    # N images with one channel: grid_sample shares out the images among the CPU's threads.
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, 0]


def sample_targets(masks: list[Tensor], points: Tensor) -> Tensor:
    """All images' true masks at shared points: list of (N, T, H, W), (P, 2) -> (sum of N, T, P)."""
    values = [
        point_sample(images.flatten(0, 1).float(), points).unflatten(0, images.shape[:2])
        for images in pad_to_common_size(masks)
    ]
    return torch.cat(values)


def pad_to_common_size(masks: list[Tensor]) -> list[Tensor]:
    """Zeros at the right and the bottom, as the images of a batch are padded: (N, T, H, W) each."""
    height, width = (max(mask.shape[axis] for mask in masks) for axis in (-2, -1))
    return [F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in masks]


def grid_points(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The n x n cell centres, row by row: (n*n, 2). Fixed points make a loss reproducible."""
    centres = (torch.arange(n, device=device) + 0.5) / n
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)  # (n, n, 2) -> (n*n, 2)


def draw_pool(
    num_points: int, oversample_ratio: float, importance_ratio: float, device: torch.device | str
) -> Tensor:
    """Uniform random points from which each mask chooses its own (`choose_points`): (pool, 2).

    First oversample_ratio * num_points candidates, then the points that every mask takes. All
    masks share the pool, so that a target is sampled once for all decoder layers; for one mask the
    points are distributed as if it had drawn them alone (PointRend, section 3.1).
    """
    num_uncertain, num_unseen = _shares(num_points, importance_ratio)
    candidates = int(oversample_ratio * num_points) if num_uncertain else 0
    return torch.rand(candidates + num_unseen, 2, device=device)


@torch.no_grad()
def choose_points(logits: Tensor, pool: Tensor, num_points: int, importance_ratio: float) -> Tensor:
    """Index of each mask's points in the pool, the least certain candidates first.

    (N, H, W), (pool, 2) -> (N, num_points). Certainty is the distance of the logit from 0.
    """
    num_uncertain, num_unseen = _shares(num_points, importance_ratio)
    candidates = len(pool) - num_unseen
    unseen = torch.arange(candidates, len(pool), device=pool.device).expand(len(logits), -1)
    if num_uncertain == 0:
        return unseen
    certainty = point_sample(logits, pool[:candidates]).abs_()  # (N, candidates)
    uncertain = certainty.topk(num_uncertain, largest=False, sorted=False).indices
    return torch.cat([uncertain, unseen], dim=1)


def _shares(num_points: int, importance_ratio: float) -> tuple[int, int]:
    num_uncertain = int(importance_ratio * num_points)
    return num_uncertain, num_points - num_uncertain
