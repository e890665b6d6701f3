"""Areas of masks and of their intersections, from run-length codes."""

import numpy as np
import torch

from ..library import BUILD, WHY_NOT


def why_not() -> str | None:
    """Why `rle_overlaps` cannot run; None if it can."""
    if WHY_NOT is None and not hasattr(torch.ops.rankseg_d2, "rle_overlaps"):
        return f"the compiled part is older than this operation; build it again: {BUILD}"
    return WHY_NOT


def rle_overlaps(codes: list[bytes | str], pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each of N masks, (N,), and of the intersections of `pairs` (P, 2), (P,).

    The codes are COCO's compressed RLE `counts`. The numbers are those of pycocotools' `area` and
    `merge`, but each code is read once. ValueError if one is damaged.
    """
    if np.ndim(pairs) != 2 or np.shape(pairs)[1] != 2:
        raise ValueError(f"pairs must be (P, 2), but is {np.shape(pairs)}")
    codes = [code.encode() if isinstance(code, str) else code for code in codes]
    ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
    text = np.frombuffer(bytearray().join(codes), np.uint8)
    arguments = map(torch.from_numpy, (text, ends, np.ascontiguousarray(pairs, np.int64)))
    areas, common = torch.ops.rankseg_d2.rle_overlaps(*arguments)
    return areas.numpy(), common.numpy()
