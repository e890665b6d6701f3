"""Video consistency (VC) of VSPW: how constant predictions are where the ground truth is.

A clip is n frames in a row. Its consistency is the share of its pixels with constant ground truth
that are predicted well; VC_n is the mean over all clips of all videos that have such pixels.

`VC8` follows the public script: predicted well means constant, right or wrong; pixels that stay
ignored have constant ground truth; the last clip of a video is skipped. `VC8_corrected` follows the
paper's formula: predicted well means constant and right; ignored pixels are left out; the last clip
counts.
"""

from collections import deque

import numpy as np


class Consistency:
    """VC of one video, frame by frame; of the last frames only bits are kept, not labels."""

    def __init__(self, lengths: tuple[int, ...], ignore: int):
        self.lengths, self.ignore = lengths, ignore
        self.last = None
        self.constant = _RunningAnd(max(lengths) - 1)
        self.clips = {name: [] for n in lengths for name in (f"VC{n}", f"VC{n}_corrected")}

    def add(self, values: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> None:
        """Add a frame (H, W): the values in its label file, their classes, and the prediction."""
        if self.last is not None:
            same = values == self.last[0], labels == self.last[1]
            self.constant.add(np.stack(list(map(_pack, same))))  # (2, words)
        self.last = values, labels
        known, right = _pack(classes != self.ignore), _pack(classes == labels)
        for n in self.lengths:
            if self.constant.count >= n - 1:
                true, predicted = self.constant.over(n - 1)
                self.clips[f"VC{n}"].append(_share(predicted, true))
                self.clips[f"VC{n}_corrected"].append(_share(predicted & right, true & known))

    def totals(self) -> dict[str, tuple[float, int]]:
        """The sum over the clips, and their number, for each kind of VC."""
        result = {}
        for name, shares in self.clips.items():
            shares = np.array(shares if name.endswith("_corrected") else shares[:-1])
            shares = shares[~np.isnan(shares)]
            result[name] = float(shares.sum()), len(shares)
        return result


class _RunningAnd:
    """The bits that were set in all of the last n arrays, without n operations.

    Level i holds, newest first, the bits set in 2^i arrays in a row; any n is a union of two runs.
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


def _pack(mask: np.ndarray) -> np.ndarray:
    """Pixels as bits, padded with zeros to whole words: bool (H, W) -> uint64 (n,)."""
    bits = np.packbits(mask)
    return np.append(bits, np.zeros(-len(bits) % 8, np.uint8)).view(np.uint64)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """The share of the pixels of `whole` that are also in `part`; NaN if `whole` has none."""
    pixels = _count(whole)
    return _count(part & whole) / pixels if pixels else np.nan


def _count(bits: np.ndarray) -> int:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return int(np.bitwise_count(bits).sum(dtype=np.int64))
    return int.from_bytes(bits.tobytes(), "little").bit_count()
