"""Errors for wrong names, with the names that are nearest."""

import difflib
from collections.abc import Iterable


def unknown_name(key: str, name: str, known: Iterable[str]) -> KeyError:
    """The error for a `name` that is not among the known ones of `key`."""
    near = ", ".join(nearest(name, sorted(known))) or "none, because none exists"
    return KeyError(f"{key}: {name!r} is not known; the nearest names are {near}")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names most similar to `name`, best first.

    The part after the last "." counts twice.
    """

    def similarity(other):
        pairs = (name, other), (name.rpartition(".")[2], other.rpartition(".")[2])
        return sum(difflib.SequenceMatcher(None, *map(str.lower, pair)).ratio() for pair in pairs)

    return sorted(names, key=similarity, reverse=True)[:count]
