"""Video consistency (VC) of VSPW: how steady predictions are where the truth does not change.

A clip is n frames in a row; VC_n is the mean, over all clips of all videos, of the share of the
pixels with a constant truth that are predicted well. Clips without such a pixel are left out.

As the public script measures it (`VC8`), predicted well means constant, be it wrong; constant void
is a truth like any other; and the last clip of a video is skipped. As the paper's formula has it
(`VC8_corrected`), predicted well means constant and right; void is left out; the last clip counts.
"""

from collections import deque
from functools import reduce
from itertools import islice

import numpy as np


class Consistency:
    """VC of one video, frame by frame; what is kept of the last frames is two bits per pixel."""

    def __init__(self, lengths: tuple[int, ...], ignore: int):
        self.lengths, self.ignore = sorted(lengths), ignore
        self.last = None
        # Where true value and prediction stay, from a frame to the next: (2, words) each, new first
        self.steps = deque(maxlen=self.lengths[-1] - 1)
        self.clips = {name: [] for n in lengths for name in (f"VC{n}", f"VC{n}_corrected")}

    def add(self, values: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> None:
        """Take in a frame: true values as they are stored, their classes, and the prediction."""
        if self.last is not None:
            stays = values == self.last[0], labels == self.last[1]
            self.steps.appendleft(np.stack(list(map(pack, stays))))
        self.last = values, labels
        known, right = pack(classes != self.ignore), pack(classes == labels)
        steps = iter(self.steps)
        for n, before in zip(self.lengths, [1, *self.lengths], strict=False):
            if len(self.steps) >= n - 1:
                new = list(islice(steps, n - before))
                stays = reduce(np.bitwise_and, new if before == 1 else [stays, *new])
                self.clips[f"VC{n}"].append(share(stays[1], stays[0]))
                self.clips[f"VC{n}_corrected"].append(share(stays[1] & right, stays[0] & known))

    def totals(self) -> dict[str, tuple[float, int]]:
        """Of each kind of VC the sum over the clips, and how many there are."""
        result = {}
        for name, shares in self.clips.items():
            shares = np.array(shares if name.endswith("_corrected") else shares[:-1])
            shares = shares[~np.isnan(shares)]
            result[name] = float(shares.sum()), len(shares)
        return result


def pack(mask: np.ndarray) -> np.ndarray:
    """Pixels as bits, filled up with zeros to whole words: bool (H, W) -> uint64 (n,)."""
    bits = np.packbits(mask)
    return np.append(bits, np.zeros(-len(bits) % 8, np.uint8)).view(np.uint64)


def share(part: np.ndarray, whole: np.ndarray) -> float:
    """How much of the pixels of `whole` are in `part` too; NaN if there are none."""
    pixels = count(whole)
    return count(part & whole) / pixels if pixels else np.nan


def count(bits: np.ndarray) -> int:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return int(np.bitwise_count(bits).sum(dtype=np.int64))
    return int.from_bytes(bits.tobytes(), "little").bit_count()
