"""The confusion matrix of label maps, of which only what occurs takes memory."""

import os

import numpy as np

from ..files import replacing

_PENDING = 2**20  # runs that wait to be summed


class Confusion:
    """Pixels of each pair of category in the ground truth and category predicted.

    Of C categories; the prediction C is no category. With C = 10,000 a table of all pairs would
    take 0.8 GB, and most pairs never occur.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._keys, self._pixels = np.zeros((2, 0), np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> "Confusion":
        """That of a table (C, C+1), or (C, C) where everything has a category."""
        found = cls(len(matrix))
        true, predicted = matrix.nonzero()
        found.add(true, predicted, matrix[true, predicted])
        return found

    @classmethod
    def load(cls, path: str | os.PathLike) -> tuple["Confusion", list[str]]:
        """What `save` has written, and the names of the classes."""
        with np.load(path) as content:
            names = list(map(str, content["classes"]))
            found = cls(len(names))
            found.add(*(content[name] for name in ("true", "predicted", "pixels")))
        return found, names

    def save(self, path: str | os.PathLike, names: list[str]) -> None:
        """Write the pairs that occur: `true`, `predicted`, `pixels` (n,), and `classes` (C,)."""
        true, predicted, pixels = self.pairs()
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary, true=true, predicted=predicted, pixels=pixels, classes=names
            )

    def add(self, true: np.ndarray, predicted: np.ndarray, pixels: np.ndarray) -> None:
        """Add pairs (n,), in any order and also repeated."""
        base, pixels = self.num_classes + 1, pixels.astype(np.int64)
        (names, rows), (others, columns) = _numbered(true, base), _numbered(predicted, base)
        if len(names) * len(others) < len(pixels):  # as in an image: a small table sums fast
            pixels = _sums(rows * len(others) + columns, pixels, len(names) * len(others))
            true, predicted = names.repeat(len(others)), np.tile(others, len(names))
            true, predicted, pixels = true[pixels > 0], predicted[pixels > 0], pixels[pixels > 0]
        keys = true.astype(np.int64) * base + predicted
        self._waiting.append((keys, pixels))
        self._count += len(keys)
        if self._count > max(_PENDING, len(self._keys)):
            self._sum()

    def __add__(self, other: "Confusion") -> "Confusion":
        total = Confusion(self.num_classes)
        for part in (self, other):
            total.add(*part.pairs())
        return total

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ground truth, prediction and pixels of the pairs that occur, in order: (n,) each."""
        self._sum()
        return (*np.divmod(self._keys, self.num_classes + 1), self._pixels)

    def hits(self) -> np.ndarray:
        """Pixels of each category that are predicted as it: (C,)."""
        true, predicted, pixels = self.pairs()
        same = true == predicted
        return _sums(true[same], pixels[same], self.num_classes)

    def true_pixels(self) -> np.ndarray:
        """Pixels of each category in the ground truth: (C,)."""
        true, _, pixels = self.pairs()
        return _sums(true, pixels, self.num_classes)

    def predicted_pixels(self) -> np.ndarray:
        """Pixels that are predicted as each category: (C,)."""
        _, predicted, pixels = self.pairs()
        return _sums(predicted, pixels, self.num_classes + 1)[:-1]

    def shares(self) -> np.ndarray:
        """Of each pair in `pairs`, the share of the ground truth's category: (n,)."""
        true, _, pixels = self.pairs()
        return pixels / self.true_pixels()[true]

    def _sum(self) -> None:
        if self._waiting:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
            pixels = np.concatenate([self._pixels, *(pixels for _, pixels in self._waiting)])
            self._keys, which = np.unique(keys, return_inverse=True)
            self._pixels = _sums(which, pixels, len(self._keys))
            self._waiting, self._count = [], 0


def _numbered(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels below `count` that occur, ascending, and the number of each label (n,) in them."""
    seen = np.zeros(count, bool)
    seen[labels] = True
    return seen.nonzero()[0], (seen.cumsum() - 1)[labels]


def _sums(places: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of the values (n,) with each place: (count,) int64."""
    total = np.zeros(count, np.int64)
    np.add.at(total, places, values)
    return total
