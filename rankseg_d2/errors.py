"""Sentences for the user: what came, what is allowed, what is nearest."""

import difflib
from collections.abc import Iterable


def unknown_name(key: str, name: str, known: Iterable[str]) -> KeyError:
    """The error for a name that `key` does not know."""
    near = ", ".join(nearest(name, sorted(known))) or "none at all"
    return KeyError(f"{key}: {name!r} is not known; the nearest names are {near}")


def nearest(name: str, names, count: int = 3) -> list[str]:
    """The `count` of `names` most like `name`, best first; the part after the last "." counts
    twice."""

    def likeness(other):
        pairs = (name, other), (name.rpartition(".")[2], other.rpartition(".")[2])
        return sum(difflib.SequenceMatcher(None, *map(str.lower, pair)).ratio() for pair in pairs)

    return sorted(names, key=likeness, reverse=True)[:count]
