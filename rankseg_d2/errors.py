"""Errors for wrong names, with the names that are nearest."""

import difflib
from collections.abc import Iterable

# What a wrong file, folder or value raises: shown as one sentence, without a traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, KeyError, ImportError)


def sentence(error: BaseException) -> str:
    """The text of an error; str of a KeyError would put it in quotes."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


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
