"""Boxes around masks."""

import torch
from torch import Tensor


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes (x0, y0, x1, y1) around masks (N, H, W): (N, 4). Empty masks have boxes of zeros."""
    low, high = [], []
    for occupied in (masks.any(1), masks.any(2)):  # (N, W), (N, H)
        size = occupied.shape[1]
        position = torch.arange(size, device=masks.device)
        low.append(position.where(occupied, size).amin(1))
        high.append((position + 1).where(occupied, 0).amax(1))
    boxes = torch.stack([*low, *high], 1)  # (N, 4)
    return (boxes * masks.flatten(1).any(1, keepdim=True)).float()
