"""Video consistency (VC) of VSPW: how steady predictions are where the truth does not change.

A clip is n frames in a row; VC_n is the mean, over all clips of all videos, of the share of the
pixels with a constant truth that are predicted well. Clips without such a pixel are left out.

As the public script measures it (`VC8`), predicted well means constant, be it wrong; constant void
is a truth like any other; and the last clip of a video is skipped. As the paper's formula has it
(`VC8_corrected`), predicted well means constant and right; void is left out; the last clip counts.
"""

from collections import deque

import numpy as np


class Consistency:
    """VC of one video, frame by frame; what is kept of the last frames is bits, not labels."""

    def __init__(self, lengths: tuple[int, ...], ignore: int):
        self.lengths, self.ignore = lengths, ignore
        self.last = None
        self.steady = Steady(max(lengths) - 1)
        self.clips = {name: [] for n in lengths for name in (f"VC{n}", f"VC{n}_corrected")}

    def add(self, values: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> None:
        """Take in a frame: true values as they are stored, their classes, and the prediction."""
        if self.last is not None:
            stays = values == self.last[0], labels == self.last[1]
            self.steady.add(np.stack(list(map(pack, stays))))  # (2, words)
        self.last = values, labels
        known, right = pack(classes != self.ignore), pack(classes == labels)
        for n in self.lengths:
            if self.steady.count >= n - 1:
                true, predicted = self.steady.over(n - 1)
                self.clips[f"VC{n}"].append(share(predicted, true))
                self.clips[f"VC{n}_corrected"].append(share(predicted & right, true & known))

    def totals(self) -> dict[str, tuple[float, int]]:
        """Of each kind of VC the sum over the clips, and how many there are."""
        result = {}
        for name, shares in self.clips.items():
            shares = np.array(shares if name.endswith("_corrected") else shares[:-1])
            shares = shares[~np.isnan(shares)]
            result[name] = float(shares.sum()), len(shares)
        return result


class Steady:
    """Which bits were set in all of the last n arrays, without n operations.

    Level i holds, newest first, what was set in 2^i arrays in a row: two of these make any n.
    """

    def __init__(self, longest: int):
        self.count = 0
        self.levels = [deque(maxlen=2**i + 1) for i in range(longest.bit_length())]

    def add(self, bits: np.ndarray) -> None:
        self.count += 1
        for i, level in enumerate(self.levels):
            level.appendleft(bits)
            if len(level) <= 2**i:
                break
            bits = bits & level[2**i]

    def over(self, n: int) -> np.ndarray:
        i = n.bit_length() - 1
        return self.levels[i][0] & self.levels[i][n - 2**i]


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
