"""Sentences for the user: what came, what is allowed, what is nearest."""

from collections.abc import Iterable

from ._yaml import nearest


def unknown_name(key: str, name: str, known: Iterable[str]) -> KeyError:
    """The error for a name that `key` does not know."""
    near = ", ".join(nearest(name, sorted(known))) or "none at all"
    return KeyError(f"{key}: {name!r} is not known; the nearest names are {near}")
