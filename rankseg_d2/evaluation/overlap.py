"""How two label maps overlap."""

import numpy as np


def joint_runs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Stretches of pixels in which neither map changes: both values and the length, (n,) each.

    Label maps are flat nearly everywhere, so whatever is counted afterwards goes over far fewer
    stretches than there are pixels, and takes the same time however many classes there are.
    """
    first, second = first.ravel(), second.ravel()
    is_end = first[1:] != first[:-1]
    is_end |= second[1:] != second[:-1]
    ends = np.append(np.flatnonzero(is_end), first.size - 1)
    return first[ends], second[ends], np.diff(ends, prepend=-1)


def overlap_table(rows: np.ndarray, columns: np.ndarray, lengths: np.ndarray, shape) -> np.ndarray:
    """Pixels of each pair of row and column, from runs (n,) of them: (R, C) int64."""
    table = np.zeros(shape, np.int64)
    add_runs(table, rows, columns, lengths)
    return table


def add_runs(table: np.ndarray, rows, columns, lengths) -> None:
    """Add runs (n,) to a table (R, C) in place."""
    flat = rows.astype(np.intp) * table.shape[1] + columns
    np.add.at(table.reshape(-1), flat, lengths)


def positions(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each value stands in `known` (n,), which ascends; n if it is not there."""
    if not len(known):
        return np.zeros(values.shape, np.intp)
    place = np.searchsorted(known, values)
    is_there = known[np.minimum(place, len(known) - 1)] == values
    return np.where(is_there, place, len(known))
