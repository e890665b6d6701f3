"""Inference by windows of the image, for images that are larger than what was trained on."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...ranking import Ranking
from ..clips import output_size, window_slices
from ..results.resizing import resize
from .several import (
    Pass,
    SeveralPasses,
    image_size,
    map_frames,
    run_pass,
    semantic_scores,
    stacked_scores,
    with_scores,
)


class SlidingWindow(SeveralPasses):
    """Averages the semantic scores of overlapping windows.

    The ranking is the image's: a category's score is its highest in any window. A mean would lose a
    category that only one window shows.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], stride: tuple[int, int]):
        """`size` and `stride` are (height, width), in pixels of the model's input."""
        super().__init__(model)
        if (
            len(size) != 2
            or len(stride) != 2
            or not all(1 <= step <= side for step, side in zip(stride, size, strict=True))
        ):
            raise ValueError(
                "TEST.SLIDING_WINDOW.SIZE and STRIDE are (height, width), and a stride is at least "
                f"1 and at most the size, but they are {list(size)} and {list(stride)}"
            )
        self.size = tuple(size)
        self.stride = tuple(stride)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> "SlidingWindow":
        options = cfg.TEST.SLIDING_WINDOW
        return cls(model, options.SIZE, options.STRIDE)

    def run_pass(self, sample: dict) -> "WindowPasses":
        size = image_size(sample)
        windows = self.windows(size)
        passes = [run_pass(self.model, crop(sample, *window)) for window in windows]
        return WindowPasses(passes, windows, size, output_size(sample, size))

    def windows(self, size: tuple[int, int]) -> list[tuple[slice, slice]]:
        """Rows and columns of all windows; the last ones end where the image ends."""
        rows, columns = map(window_slices, size, self.size, self.stride)
        return [(r, c) for r in rows for c in columns]


@dataclass(frozen=True)
class WindowPasses(Pass):
    """The passes of all windows of an image."""

    passes: list[Pass]
    windows: list[tuple[slice, slice]]
    size: tuple[int, int]  # of the image
    output_size: tuple[int, int]

    @property
    def scores(self) -> Tensor | None:
        scores = stacked_scores(self.passes)
        return None if scores is None else scores.amax(0)

    def result(self, ranking: Ranking | None) -> dict:
        total, count = None, torch.zeros(self.size)
        for (rows, columns), one in zip(self.windows, self.passes, strict=True):
            result = one.result(ranking)
            part = semantic_scores(result)
            if total is None:
                total = part.new_zeros(*part.shape[:-2], *self.size)  # (K, [T,] H, W)
            total[..., rows, columns] += part
            count[rows, columns] += 1
        total /= count.to(total)
        return with_scores(result, _resize_maps(total, self.output_size))


def crop(sample: dict, rows: slice, columns: slice) -> dict:
    """The sample of a window, whose results have the window's size."""
    image = map_frames(sample, lambda frame: frame[:, rows, columns])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return {**sample, "image": image, "height": height, "width": width}


def _resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) at another size."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return resize(flat, size).view(*maps.shape[:-2], *size)
