"""The confusion matrix of label maps, of which only what occurs takes memory."""

import os

import numpy as np

from ..files import replacing
from ..pair_counts import PairCounts, sums


class Confusion(PairCounts):
    """Pixels of each pair of category in the ground truth and category predicted.

    Of C categories; the prediction C is no category. With C = 10,000 a table of all pairs would
    take 0.8 GB, and most pairs never occur.
    """

    def __init__(self, num_classes: int):
        super().__init__(num_classes + 1)
        self.num_classes = num_classes

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
        columns = dict(zip(("true", "predicted", "pixels"), self.pairs(), strict=True))
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **columns, classes=names)

    def add_runs(self, true: np.ndarray, predicted: np.ndarray, lengths: np.ndarray) -> None:
        """Add the runs (n,) of an image; if it has few categories, a small table sums them."""
        (rows, row), (columns, column) = (_numbered(x, self.num_columns) for x in (true, predicted))
        shape = len(rows), len(columns)
        if shape[0] * shape[1] > len(lengths):
            return self.add(true, predicted, lengths)
        table = sums(row * shape[1] + column, lengths, shape[0] * shape[1]).reshape(shape)
        where = table.nonzero()
        return self.add(rows[where[0]], columns[where[1]], table[where])

    def hits(self) -> np.ndarray:
        """Pixels of each category that are predicted as it: (C,)."""
        true, predicted, pixels = self.pairs()
        return sums(true, pixels * (true == predicted), self.num_classes)

    def true_pixels(self) -> np.ndarray:
        """Pixels of each category in the ground truth: (C,)."""
        true, _, pixels = self.pairs()
        return sums(true, pixels, self.num_classes)

    def predicted_pixels(self) -> np.ndarray:
        """Pixels that are predicted as each category: (C,)."""
        _, predicted, pixels = self.pairs()
        return sums(predicted, pixels, self.num_columns)[:-1]

    def shares(self) -> np.ndarray:
        """Of each pair in `pairs`, the share of the ground truth's category: (n,)."""
        true, _, pixels = self.pairs()
        return pixels / self.true_pixels()[true]


def _numbered(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels below `count` that occur, ascending, and the number of each label (n,) in them."""
    seen = np.zeros(count, bool)
    seen[labels] = True
    return seen.nonzero()[0], (seen.cumsum() - 1)[labels]
