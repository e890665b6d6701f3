"""Sums for pairs of numbers, such as two classes, of which only those that occur take memory."""

import numpy as np

_WAITING = 2**20  # pairs that wait to be summed


class PairCounts:
    """An integer for each pair (row, column) that was added; columns are 0 to num_columns - 1."""

    def __init__(self, num_columns: int):
        self.num_columns = num_columns
        self._keys, self._counts = np.zeros((2, 0), np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._number = 0

    def add(self, rows: np.ndarray, columns: np.ndarray, counts: np.ndarray) -> None:
        """Add to pairs (n,), in any order and also repeated."""
        keys = rows.astype(np.int64) * self.num_columns + columns
        self._waiting.append((keys, counts.astype(np.int64)))
        self._number += len(keys)
        if self._number > max(_WAITING, len(self._keys)):
            self._sum()

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and sums of the pairs that occur, in order: (n,) each."""
        self._sum()
        return (*np.divmod(self._keys, self.num_columns), self._counts)

    def _sum(self) -> None:
        if self._waiting:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._waiting)])
            self._keys, which = np.unique(keys, return_inverse=True)
            self._counts = sums(which, counts, len(self._keys))
            self._waiting, self._number = [], 0


def sums(places: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """Sums of the values (n,) at each place: (length,) int64."""
    total = np.zeros(length, np.int64)
    np.add.at(total, places, values)
    return total
