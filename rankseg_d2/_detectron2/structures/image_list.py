"""Images of several sizes in one padded tensor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """A padded batch: `tensor` (N, ..., H, W), and the true (height, width) of each image."""

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """One image without its padding: (..., h, w)."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> "ImageList":
        """Pad images (..., h, w) on the right and below to one size.

        `padding_constraints` are a backbone's wishes: "square_size" asks for a square with that
        side, "size_divisibility" wins over the argument of that name.
        """
        if len(tensors) == 0:
            raise ValueError("ImageList.from_tensors takes at least one image, none came")
        leading = tensors[0].shape[:-2]
        if any(image.shape[:-2] != leading for image in tensors):
            raise ValueError(
                "the images of a batch differ in height and width only, not in their other "
                f"dimensions: {[tuple(image.shape) for image in tensors]}"
            )
        image_sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        size = _padded_size(image_sizes, size_divisibility, padding_constraints or {})
        padded = tensors[0].new_full((len(tensors), *leading, *size), pad_value)
        for image, (height, width), target in zip(tensors, image_sizes, padded, strict=True):
            target[..., :height, :width].copy_(image)
        return ImageList(padded, image_sizes)


def _padded_size(
    image_sizes: list[tuple[int, int]], divisor: int, constraints: dict[str, int]
) -> tuple[int, int]:
    height, width = (max(sides) for sides in zip(*image_sizes, strict=True))
    side = constraints.get("square_size", 0)
    if side > 0:
        if max(height, width) > side:
            raise ValueError(
                f"an image of {height}x{width} does not fit the square of {side} that the "
                "backbone asks for (square_size); resize the images first"
            )
        height = width = side
    divisor = constraints.get("size_divisibility", divisor)
    if divisor > 1:
        height, width = (-(-length // divisor) * divisor for length in (height, width))
    return height, width
