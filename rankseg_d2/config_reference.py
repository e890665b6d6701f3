"""The reference of the config keys: defaults, meanings (the comments of config.py) and values."""

import ast
import io
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from .config_ranges import RANGES
from .errors import nearest, short

_PACKAGE = Path(__file__).parent
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text",
          list: "a list", tuple: "a list"}  # fmt: skip
_HEAD = """\
# Config keys

This page is what `rankseg-d2 configs --keys` writes, from the comments of `rankseg_d2/config.py`;
`rankseg-d2 configs --keys WORD` writes the lines that contain a word, such as `SOLVER` or
`checkpoint`. Each line has a key, its default, what it means, and the values that it may have.
*ours* marks keys that upstream does not have; the others are MaskFormer's and Mask2Former's. The
keys of detectron2, which its documentation explains, are at the end, without those of its
detectors. How configs are written and found: [docs/config.md](config.md).
"""


class Entry(NamedTuple):
    """A config key, its default, and the comment that explains it."""

    name: str
    default: Any
    meaning: str

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    def line(self) -> str:
        meaning = f": {self.meaning}" if self.meaning else ""
        return f"* `{self.name}: {self.default!r}`{meaning}{self._values()}"

    def _values(self) -> str:
        """The values that are allowed, in brackets; nothing for a default None without a range."""
        text = _KINDS.get(type(self.default), "")
        if self.name in RANGES:
            text = RANGES[self.name].text.replace(" and below 2^31", "")
        return f" ({text})" if text else ""


def our_keys() -> list[Entry]:
    """The keys of config.py."""
    return _read(_PACKAGE / "config.py", "KEYS")


def detectron2_keys() -> list[Entry]:
    """The keys of detectron2, as the embedded engine has them, without those of detectors."""
    return _read(_PACKAGE / "_detectron2/config/defaults.py", "DEFAULTS")


def key_reference(word: str = "") -> str:
    """A page with all keys by section, or only the lines that contain `word`, in any case.

    KeyError with the nearest keys, if no line contains it.
    """
    ours, theirs = our_keys(), detectron2_keys()
    if not word:
        return "\n".join([_HEAD, *_sections(ours), "# Keys of detectron2\n", *_sections(theirs)])
    lines = [key.line() for key in (*ours, *theirs)]
    found = [line for line in lines if word.lower() in line.lower()]
    if not found:
        near = ", ".join(nearest(word, [key.name for key in (*ours, *theirs)]))
        raise KeyError(f"no key contains {short(word)}, nor does what is said of one; the nearest "
                       f"keys are {near}")
    return "\n".join(found) + "\n"


def _sections(keys: list[Entry]) -> Iterator[str]:
    """A heading and the lines of each section; keys without a section come last."""
    order = list(dict.fromkeys(key.section for key in keys))
    keys = sorted(keys, key=lambda key: (not key.section, order.index(key.section)))
    for section, group in groupby(keys, lambda key: key.section):
        lines = "\n".join(key.line() for key in group)
        yield f"## {section or 'Without a section'}\n\n{lines}\n"


def _read(path: Path, name: str) -> list[Entry]:
    """The keys of the nested dict that a Python file assigns to `name`."""
    source = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    assigned = {ast.unparse(node.targets[0]): node.value for node in ast.parse(source).body
                if isinstance(node, ast.Assign)}  # fmt: skip
    return list(_keys(assigned[name], comments))


def _keys(
    section: ast.expr, comments: dict[int, tokenize.TokenInfo], prefix: str = "", mark: str = ""
) -> Iterator[Entry]:
    """The keys below a dict, or below the last one of `a | b`; `mark` begins what they mean."""
    section = section.right if isinstance(section, ast.BinOp) else section
    for i, (key, value) in enumerate(zip(section.keys, section.values, strict=True)):
        is_section = isinstance(value, ast.Dict | ast.BinOp)
        end = key.lineno if is_section else value.end_lineno
        is_last_of_line = all(other.lineno != end for other in section.keys[i + 1 :])
        meaning = _comment(key.lineno, end, comments) if is_last_of_line else ""
        if mark and not meaning.startswith(mark):
            meaning = f"{mark}: {meaning}"
        if is_section:
            mark_of_all = "ours" if meaning.startswith("ours") else ""
            yield from _keys(value, comments, f"{prefix}{key.value}.", mark_of_all)
        else:
            yield Entry(prefix + key.value, ast.literal_eval(value), meaning)


def _comment(start: int, end: int, comments: dict[int, tokenize.TokenInfo]) -> str:
    """The comment at the end of a key's last line, or else the comments right above its first."""
    if end in comments:
        found = [comments[end]]
    else:
        found = []
        while (above := comments.get(start - 1 - len(found))) and above.line.lstrip()[0] == "#":
            found.insert(0, above)
    return " ".join(token.string.strip("# ") for token in found)
