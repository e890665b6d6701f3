"""Inference by windows of the image, for images that are larger than what was trained on."""

import torch
from torch import Tensor

from ..clips import output_size, places
from ..results.segments import resize
from .several import Look, SeveralPasses, image_size, look, map_frames, semantic_scores, with_scores


class SlidingWindow(SeveralPasses):
    """Averages the semantic scores of overlapping windows.

    The ranking is the image's: a category's score is its highest in any window, since it is in the
    image if it is in one of them. A mean would forget what is in a single one.
    """

    def __init__(self, model, size: tuple[int, int], stride: tuple[int, int]):
        """`size` and `stride` are (height, width), in pixels of the model's input."""
        super().__init__(model)
        if len(size) != 2 or len(stride) != 2 or not all(
            1 <= step <= side for step, side in zip(stride, size, strict=True)
        ):
            raise ValueError(
                "TEST.SLIDING_WINDOW.SIZE and STRIDE are (height, width), and a stride is at least "
                f"1 and at most the size, but they are {list(size)} and {list(stride)}"
            )
        self.size = tuple(size)
        self.stride = tuple(stride)

    @classmethod
    def from_config(cls, cfg, model) -> "SlidingWindow":
        options = cfg.TEST.SLIDING_WINDOW
        return cls(model, options.SIZE, options.STRIDE)

    def look(self, sample):
        size = image_size(sample)
        windows = self.windows(size)
        seen = [look(self.model, crop(sample, *window)) for window in windows]
        scores = None if seen[0].scores is None else torch.stack([x.scores for x in seen]).amax(0)

        def segment(ranking):
            total, count = 0, torch.zeros(size)
            for (rows, columns), one in zip(windows, seen, strict=True):
                result = one.segment(ranking)
                part = semantic_scores(result)
                if isinstance(total, int):
                    total = part.new_zeros(*part.shape[:-2], *size)  # (K, [T,] H, W)
                total[..., rows, columns] += part
                count[rows, columns] += 1
            total /= count.to(total)
            return with_scores(result, enlarge(total, output_size(sample, size)))

        return Look(scores, segment)

    def windows(self, size: tuple[int, int]) -> list[tuple[slice, slice]]:
        """Rows and columns of all windows; the last ones end where the image ends."""
        rows, columns = map(places, size, self.size, self.stride)
        return [(r, c) for r in rows for c in columns]


def crop(sample: dict, rows: slice, columns: slice) -> dict:
    """The sample of a window, whose results have the window's size."""
    image = map_frames(sample, lambda frame: frame[:, rows, columns])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return {**sample, "image": image, "height": height, "width": width}


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) at another size."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return resize(flat, size).view(*maps.shape[:-2], *size)
