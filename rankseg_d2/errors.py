"""Errors in one sentence: what came, cut where it is long, and the nearest names.

RANKSEG_TRACEBACK=1 shows the traceback of an error.
"""

import difflib
import os
import reprlib
from collections.abc import Iterable

# What a wrong file, folder or value raises; others are mistakes in the code.
_EXPECTED = (ValueError, KeyError, RuntimeError, OSError, ArithmeticError, ImportError)
INTERRUPTED = 130  # the exit status after Ctrl-C, as of shells

_LONGEST = 200  # letters of a name or value in an error
_LONGEST_SENTENCE = 1500

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _LONGEST
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 30
_REPR.maxlevel = 4


def short(value: object) -> str:
    """`repr(value)`, cut where it is long; lists of lists do not make it slow."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return cut(text, 2 * _LONGEST)


def cut(text: str, longest: int = _LONGEST) -> str:
    """The text, without what is too much for an error."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def sentence(error: BaseException) -> str:
    """One line: what is wrong and what to do."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror}"
    else:  # str of a KeyError would put it in quotes
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = cut(" ".join(text.split()), _LONGEST_SENTENCE)
    if isinstance(error, _EXPECTED) and text:
        return text
    return f"{type(error).__name__}: {text} (RANKSEG_TRACEBACK=1 shows where)"


def shows_tracebacks() -> bool:
    return os.environ.get("RANKSEG_TRACEBACK") == "1"


def unknown_name(key: str, name: str, known: Iterable[str]) -> KeyError:
    """The error for a `name` that is not among the known ones of `key`."""
    near = ", ".join(nearest(name, sorted(known))) or "none, because none exists"
    return KeyError(f"{key}: {short(name)} is not known; the nearest names are {near}")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names most similar to `name`, best first.

    The part after the last "." counts twice.
    """
    name = name[:_LONGEST]

    def similarity(other):
        pairs = (name, other), (name.rpartition(".")[2], other.rpartition(".")[2])
        return sum(difflib.SequenceMatcher(None, *map(str.lower, pair)).ratio() for pair in pairs)

    return sorted(names, key=similarity, reverse=True)[:count]
