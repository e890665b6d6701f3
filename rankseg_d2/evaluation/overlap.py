"""Overlaps of two label maps."""

import numpy as np


def joint_runs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Runs of pixels in which neither map changes: both values and the length, (n,) each.

    Label maps have far fewer runs than pixels, so counting is fast, for any number of classes.
    """
    first, second = first.ravel(), second.ravel()
    is_end = first[1:] != first[:-1]
    is_end |= second[1:] != second[:-1]
    ends = np.append(np.flatnonzero(is_end), first.size - 1)
    return first[ends], second[ends], np.diff(ends, prepend=-1)


def overlap_table(
    rows: np.ndarray, columns: np.ndarray, lengths: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The pixels of each pair of row and column, from runs (n,): (R, C) int64."""
    table = np.zeros(shape, np.int64)
    np.add.at(table.reshape(-1), rows.astype(np.intp) * shape[1] + columns, lengths)
    return table


def positions(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The index of each value in `known` (n,), which ascends; n for a value that is absent."""
    if not len(known):
        return np.zeros(values.shape, np.intp)
    index = np.searchsorted(known, values)
    is_known = known[np.minimum(index, len(known) - 1)] == values
    return np.where(is_known, index, len(known))
