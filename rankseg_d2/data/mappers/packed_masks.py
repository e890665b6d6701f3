"""The masks of a training sample, packed to be sent from the dataloader to the device.

Both kinds have `.tensor`, bool (N, H, W), like detectron2's BitMasks, and can be fields of
`Instances`. The model unpacks them on its device: `.tensor` is computed on access.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes
from torch import Tensor

from ..formats.label_images import present_values


class _PackedMasks:
    """N masks that share one tensor, and the key (N,) of each mask in it.

    A subclass has `tensor`, `nonempty`, and `_boxes`, an array (N, 4).
    """

    def __init__(self, packed: Tensor, keys: Tensor) -> None:
        self.packed = packed
        self.keys = keys

    @property
    def image_size(self) -> torch.Size:
        return self.packed.shape[-2:]

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def to(self, *args, **kwargs) -> "_PackedMasks":
        return type(self)(self.packed.to(*args, **kwargs), self.keys.to(*args, **kwargs))

    def __getitem__(self, item: int | slice | Tensor) -> "_PackedMasks":
        """Some of the masks; an integer gives one mask, with N = 1."""
        return type(self)(self.packed, self.keys[item].reshape(-1))

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Tensor]:
        """The masks (H, W), one by one."""
        return (self[i].tensor[0] for i in range(len(self)))

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask, its far edges exclusive; zeros where a mask is empty."""
        return Boxes(torch.from_numpy(self._boxes()).to(self.device, torch.float32))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)}, size={tuple(self.image_size)})"


class IdMapMasks(_PackedMasks):
    """Masks that do not overlap: a map of ids (H, W), and the id of each mask (N,)."""

    def __init__(self, id_map: Tensor, ids: Tensor | Sequence[int]) -> None:
        super().__init__(id_map, torch.as_tensor(ids, dtype=id_map.dtype))

    @property
    def tensor(self) -> Tensor:
        return self.packed == self.keys[:, None, None]  # (N, H, W)

    def nonempty(self) -> Tensor:
        """Which masks have a pixel: (N,) bool."""
        present = torch.from_numpy(present_values(self.packed.cpu().numpy()))
        return torch.isin(self.keys, present.to(self.device))

    def _boxes(self):
        ids, keys = self.packed.cpu().numpy(), self.keys.cpu().numpy()
        height, width = ids.shape
        starts = np.ones(ids.shape, bool)  # of runs of an id along a row
        np.not_equal(ids[:, 1:], ids[:, :-1], out=starts[:, 1:])
        starts = np.flatnonzero(starts)
        values, index = np.unique(ids.ravel()[starts], return_inverse=True)
        y0, x0 = np.divmod(starts, width)
        x1 = x0 + np.diff(starts, append=ids.size)
        low = np.full((len(values), 2), ids.size)
        high = np.zeros((len(values), 2), low.dtype)
        for axis, (first, last) in enumerate(((x0, x1), (y0, y0 + 1))):
            np.minimum.at(low[:, axis], index, first)
            np.maximum.at(high[:, axis], index, last)
        boxes = np.concatenate([low, high], 1)
        found = np.searchsorted(values, keys).clip(max=len(values) - 1)
        return np.where((values[found] == keys)[:, None], boxes[found], 0)


class BitPackedMasks(_PackedMasks):
    """Masks that may overlap: planes (ceil(N/8), H, W) uint8, and the number of each mask (N,).

    Mask n is bit n % 8 of plane n // 8.
    """

    @property
    def tensor(self) -> Tensor:
        bits = _bits(self.keys)[:, None, None]
        return (self.packed[self.keys // 8] & bits) != 0  # (N, H, W)

    def nonempty(self) -> Tensor:
        """Which masks have a pixel: (N,) bool."""
        return self._along(2).any(1).to(self.device)

    def _boxes(self):
        sides = [_extent(self._along(axis).numpy()) for axis in (1, 2)]  # (N, 2) of x, of y
        return np.stack(sides, 2).reshape(-1, 4)  # x0 y0 x1 y1

    def _along(self, axis):
        """Whether each mask has a pixel in a column (axis 1) or in a row (2): (N, W) or (N, H)."""
        planes, numbers = self.packed.cpu().numpy(), self.keys.cpu()
        used = torch.from_numpy(np.bitwise_or.reduce(planes, axis=axis))
        return (used[numbers // 8] & _bits(numbers)[:, None]) != 0


def _extent(used: np.ndarray) -> np.ndarray:
    """First and one past the last used index, zeros if none is used: (N, L) -> (N, 2)."""
    ends = np.stack([used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)], 1)
    return np.where(used.any(1, keepdims=True), ends, 0)


def _bits(numbers: Tensor) -> Tensor:
    return (1 << numbers % 8).to(torch.uint8)


def pack(pieces: list[tuple[int, int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """A map of ids from 1 (H, W) or, if masks overlap, their bits (ceil(N/8), H, W).

    Args:
        pieces: of each of the N masks: top, left and bool pixels of a box; outside it is False.
    """
    ids = np.zeros(size, np.min_scalar_type(len(pieces)))
    area = 0
    for number, (top, left, mask) in enumerate(pieces):
        height, width = mask.shape
        ids[top : top + height, left : left + width][mask] = number + 1
        area += np.count_nonzero(mask)
    if np.count_nonzero(ids) == area:
        return ids
    bits = np.zeros((-(-len(pieces) // 8), *size), np.uint8)
    for number, (top, left, mask) in enumerate(pieces):
        height, width = mask.shape
        window = bits[number // 8, top : top + height, left : left + width]
        window |= mask.view(np.uint8) << np.uint8(number % 8)
    return bits


def packed_masks(packed: np.ndarray, count: int) -> IdMapMasks | BitPackedMasks:
    """The N = `count` masks of an array that `pack` made."""
    packed = np.ascontiguousarray(packed)
    if packed.ndim == 3:
        return BitPackedMasks(torch.from_numpy(packed), torch.arange(count))
    if packed.dtype == np.uint16:  # torch has few functions for it
        packed = packed.astype(np.int16 if count < 2**15 else np.int32)
    return IdMapMasks(torch.from_numpy(packed), torch.arange(1, count + 1))
