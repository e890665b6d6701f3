"""Axis-aligned boxes (x0, y0, x1, y1) in absolute pixels, and how they overlap."""

from collections.abc import Iterator
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor


@unique
class BoxMode(IntEnum):
    """How four (rotated: five) numbers say a box. The values stand in annotation files."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box, from_mode: "BoxMode", to_mode: "BoxMode"):
        """The same box(es) in another mode; list, tuple, array or tensor as it came in."""
        if from_mode == to_mode:
            return box
        if {from_mode, to_mode} != {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
            raise ValueError(
                "the embedded engine converts boxes between XYXY_ABS and XYWH_ABS, not from "
                f"{BoxMode(from_mode).name} to {BoxMode(to_mode).name}; convert them beforehand"
            )
        boxes = torch.as_tensor(box)
        if boxes.shape[-1] != 4:
            raise ValueError(f"boxes have 4 numbers in the last dimension, not {boxes.shape[-1]}")
        corner, rest = boxes.split(2, dim=-1)
        rest = rest + corner if to_mode == BoxMode.XYXY_ABS else rest - corner
        boxes = torch.cat([corner, rest], dim=-1)
        if isinstance(box, Tensor):
            return boxes
        return boxes.numpy() if isinstance(box, np.ndarray) else type(box)(boxes.tolist())


class Boxes:
    """N boxes: `tensor` is float32, (N, 4), x0 y0 x1 y1."""

    def __init__(self, tensor: Tensor):
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"Boxes take a tensor of shape (N, 4), not {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> "Boxes":
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device) -> "Boxes":
        return Boxes(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        size = self.tensor[:, 2:] - self.tensor[:, :2]
        return size[:, 0] * size[:, 1]

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut the boxes, in place, to an image of (height, width)."""
        if not torch.isfinite(self.tensor).all():
            raise ValueError("cannot clip boxes that hold infinite or NaN coordinates")
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        x0, x1 = x0.clamp(min=0, max=width), x1.clamp(min=0, max=width)
        y0, y1 = y0.clamp(min=0, max=height), y1.clamp(min=0, max=height)
        self.tensor = torch.stack((x0, y0, x1, y1), dim=1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Which boxes have both sides longer than `threshold`: (N,) bool."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def get_centers(self) -> Tensor:
        """(N, 2): x, y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: list["Boxes"]) -> "Boxes":
        if not boxes_list:
            return cls(torch.empty(0))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def __getitem__(self, item) -> "Boxes":
        """Always Boxes: an integer gives a single one."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        return Boxes(self.tensor[item])

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One (4,) tensor at a time."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Shared area of each pair: (N, M)."""
    first, second = boxes1.tensor[:, None], boxes2.tensor
    corner = torch.maximum(first[..., :2], second[:, :2])
    size = (torch.minimum(first[..., 2:], second[:, 2:]) - corner).clamp(min=0)  # (N, M, 2)
    return size[..., 0] * size[..., 1]


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of each pair: (N, M), 0 where they do not meet."""
    shared = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - shared
    return torch.where(shared > 0, shared / union, 0.0)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over the area of the second box of each pair: (N, M)."""
    shared = pairwise_intersection(boxes1, boxes2)
    return torch.where(shared > 0, shared / boxes2.area(), 0.0)
