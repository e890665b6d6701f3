"""The masks of the objects of one image: as bits, or as polygons."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .boxes import Boxes


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area of a simple polygon from its corners' coordinates."""
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons (x0 y0 x1 y1 ...) as COCO draws it: (height, width) bool."""
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    from pycocotools import mask as coco_mask

    encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return coco_mask.decode(encoded).astype(bool)


class BitMasks:
    """N masks of one size: `tensor` is bool, (N, H, W)."""

    def __init__(self, tensor: Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.dim() != 3:
            raise ValueError(f"BitMasks take a tensor (N, H, W), not {tuple(tensor.shape)}")
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | Tensor) -> "BitMasks":
        """Always BitMasks: an integer gives a single one."""
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        return BitMasks(self.tensor[item])

    def __iter__(self) -> Iterator[Tensor]:
        """One (H, W) tensor at a time."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def nonempty(self) -> Tensor:
        """Which masks have a pixel: (N,) bool."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        masks = [polygons_to_bitmask(polygons, height, width) for polygons in polygon_masks]
        return BitMasks(np.stack(masks) if masks else torch.empty(0, height, width))

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask, its far edges exclusive; zeros where a mask is empty."""
        sides = []
        for along in (self.tensor.any(dim=1), self.tensor.any(dim=2)):  # (N, W), (N, H)
            length = along.shape[1]
            place = torch.arange(length, device=self.device)
            first = torch.where(along, place, length).amin(dim=1, keepdim=True)
            last = torch.where(along, place + 1, 0).amax(dim=1, keepdim=True)
            sides.append((first, last))
        (x0, x1), (y0, y1) = sides
        boxes = torch.cat([x0, y0, x1, y1], dim=1)
        return Boxes(torch.where(self.nonempty()[:, None], boxes, 0))

    @staticmethod
    def cat(bitmasks_list: list["BitMasks"]) -> "BitMasks":
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class PolygonMasks:
    """N masks, each a list of polygons: float64 arrays x0 y0 x1 y1 ..."""

    def __init__(self, polygons: list[list[Tensor | np.ndarray]]):
        if not isinstance(polygons, list) or not all(isinstance(p, list) for p in polygons):
            raise ValueError(
                "PolygonMasks take a list, one entry per object, of lists of polygons"
            )
        self.polygons = [[_as_polygon(p) for p in of_one_object] for of_one_object in polygons]

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        """Itself: polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each object; an object without polygons has one that is inside out."""
        boxes = []
        for polygons in self.polygons:
            corners = np.concatenate([np.empty(0), *polygons]).reshape(-1, 2)
            low, high = corners.min(axis=0, initial=np.inf), corners.max(axis=0, initial=0)
            boxes.append([*low.tolist(), *high.tolist()])
        return Boxes(torch.tensor(boxes))

    def nonempty(self) -> Tensor:
        """Which objects have a polygon: (N,) bool."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: int | slice | list[int] | Tensor) -> "PolygonMasks":
        """Always PolygonMasks: an integer gives a single one."""
        if isinstance(item, int):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        index = torch.as_tensor(item)
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        if index.dim() != 1 or (len(index) and index.is_floating_point()):
            raise ValueError(f"PolygonMasks cannot be indexed with {item!r}")
        return PolygonMasks([self.polygons[i] for i in index.long().tolist()])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The polygons of one object at a time."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def area(self) -> Tensor:
        """Summed area of each object's polygons: (N,) float64."""
        areas = [sum(polygon_area(p[0::2], p[1::2]) for p in ps) for ps in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    @staticmethod
    def cat(polymasks_list: list["PolygonMasks"]) -> "PolygonMasks":
        return PolygonMasks([polygons for masks in polymasks_list for polygons in masks])


def _as_polygon(polygon: Tensor | np.ndarray) -> np.ndarray:
    polygon = polygon.cpu() if isinstance(polygon, Tensor) else polygon
    polygon = np.asarray(polygon, dtype=np.float64)
    if polygon.ndim != 1 or len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(
            "a polygon is a flat list x0 y0 x1 y1 ... of at least 3 corners, "
            f"not {polygon.shape} numbers"
        )
    return polygon
