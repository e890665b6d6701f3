"""Config files: safe yaml, `_BASE_` chains, and errors that say what to write instead."""

import ast
import copy
import functools
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import yaml

from .errors import nearest

BASE_KEY = "_BASE_"
open_text = functools.partial(open, encoding="utf-8")
# Upstream's default of these is the integer 0, but fractions are allowed.
NUMBERS = {"MODEL.RANKSEG.LOSS_WEIGHT"}
# An expression in the tags of upstream's files: [int(x * 0.1 * 512) for x in range(5, 21)]
_SIZES = re.compile(
    r"\[ *int\( *(\w+) *\* *(\d*\.?\d+) *\* *(\d+) *\) +for +\1 +in +"
    r"range\( *(\d{1,3}) *, *(\d{1,3}) *\) *\]"
)


def beside(base: str, path: str) -> str:
    """The file of `_BASE_: base` in `path`: an address, an absolute path, or one beside `path`."""
    base = os.path.expanduser(base)
    return base if "://" in base else os.path.join(os.path.dirname(path), base)


def read_chain(
    path: str | os.PathLike,
    open_file: Callable[[str], TextIO] = open_text,
    find_base: Callable[[str, str], str] = beside,
    inheritors: tuple[str, ...] = (),
) -> list[tuple[str, dict]]:
    """[(file, its keys), ...] of the `_BASE_` files of a yaml file, and of the file itself last.

    `open_file(path)` opens a file; `find_base(base, path)` is the file of a `_BASE_` in `path`.
    """
    path = str(path)
    real_path = os.path.realpath(path)
    if real_path in inheritors:
        raise ValueError(f"{path}: {BASE_KEY} leads back to the file itself, through "
                         f"{' <- '.join(inheritors)}. Remove one of these {BASE_KEY}.")
    keys = read_yaml(path, open_file)
    bases = keys.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: {BASE_KEY} must be a file name or a list of them, got {bases!r}")
    chain = []
    for base in bases:
        inherited = (*inheritors, real_path)
        chain += read_chain(find_base(base, path), open_file, find_base, inherited)
    return [*chain, (path, keys)]


def merge_chain(chain: list[tuple[str, dict]]) -> dict:
    """The keys of a chain in one dict; later files win."""
    merged = {}
    for path, keys in chain:
        _merge(keys, merged, path)
    return merged


def _merge(keys: dict, into: dict, path: str) -> None:
    for name, value in keys.items():
        if isinstance(value, dict) and name in into:
            if not isinstance(into[name], dict):
                raise ValueError(f"{path}: {name} is a section here, but a value in its {BASE_KEY}")
            _merge(value, into[name], path)
        else:
            into[name] = copy.deepcopy(value)  # in yaml, sections of one anchor are the same dict


def pop_version(keys: dict, path: str) -> None:
    """Remove VERSION; keys that only version 1 has are reported as unknown keys."""
    version = keys.pop("VERSION", 2)
    if version not in (1, 2):
        raise ValueError(f"{path}: VERSION must be 2 (or left out), got {version!r}")


def read_yaml(path: str, open_file: Callable[[str], TextIO] = open_text) -> dict:
    """The keys of one yaml file of plain values; an empty file has none."""
    try:
        with open_file(path) as file:
            text = file.read()
        loader = _PlainLoader(text)
        loader.name = path
        keys = loader.get_single_data()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config file {path} does not exist") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise ValueError(f"{path}, line {line}: not valid yaml: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not a yaml file: it has characters other than text") from error
    if not isinstance(keys, dict | None):
        raise ValueError(f"{path} must hold lines of `KEY: value`, got {_got(keys)}")
    return keys or {}


class _PlainLoader(yaml.SafeLoader):
    """Refuses tags that plain yaml does not have."""

    def refuse_tag(self, node):
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise ValueError(
            f"{self.name}, line {node.start_mark.line + 1}: {tag} is refused, because config "
            f"files never run code; write {self._instead_of(node)} instead"
        )

    def _instead_of(self, node) -> str:
        """The plain yaml for a tagged node, as far as it is known without running the tag."""
        if not isinstance(node, yaml.SequenceNode):
            return "the plain value"
        values = self.construct_sequence(node, deep=True)
        if node.tag.endswith("python/tuple"):
            return str(values)
        sizes = _SIZES.fullmatch(values[0].strip()) if _is_text(values) else None
        if sizes is None:
            return "its values, such as [256, 512],"
        _, factor, size, start, stop = sizes.groups()
        return str([int(x * float(factor) * int(size)) for x in range(int(start), int(stop))])


_PlainLoader.add_constructor(None, _PlainLoader.refuse_tag)


def _is_text(values: list) -> bool:
    return len(values) == 1 and isinstance(values[0], str)


class Key(NamedTuple):
    """A config key: `section[name]`, and its default."""

    section: dict
    name: str
    default: Any


def settable_keys(section: dict, prefix: str = "") -> dict[str, Key]:
    """The keys below a config node, sections included, by full name."""
    keys = {}
    for name, default in section.items():
        keys[prefix + name] = Key(section, name, default)
        if isinstance(default, dict):
            keys |= settable_keys(default, f"{prefix}{name}.")
    return keys


def set_keys(keys: dict[str, Key], values: dict, source: str, prefix: str = "") -> None:
    """Set the nested `values`, checked against the defaults; errors name the `source`."""
    for name, value in values.items():
        full_key = f"{prefix}{name}"
        if full_key not in keys:
            raise KeyError(
                f"{source}: unknown key {full_key}; the nearest names are "
                f"{', '.join(nearest(full_key, keys))}"
            )
        key = keys[full_key]
        if isinstance(key.default, dict) and isinstance(value, dict):
            set_keys(keys, value, source, full_key + ".")
        else:
            key.section[key.name] = _checked(value, key.default, full_key, source)


def _checked(value: Any, default: Any, full_key: str, source: str) -> Any:
    """`value` in the type of `default`; text that is a Python literal is read as one."""
    if isinstance(default, dict):
        names = ", ".join(f"{full_key}.{name}" for name in list(default)[:3])
        raise ValueError(f"{source}: {full_key} is a section with keys such as {names}, "
                         f"got {_got(value)}")
    literal = _literal(value)
    kinds = {type(literal), type(default)}
    plain = (bool, int, float, str, list, tuple, type(None))
    if len(kinds) == 1 or (type(None) in kinds and isinstance(literal, plain)):
        return literal
    if kinds == {list, tuple} or (isinstance(default, float) and type(literal) is int):
        return type(default)(literal)
    if full_key in NUMBERS and isinstance(literal, float):
        return literal
    if isinstance(default, str) and isinstance(value, str):
        return value
    raise ValueError(f"{source}: {full_key} must be {_expected(default)}, got {_got(literal)}")


def _literal(value):
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _expected(default) -> str:
    if isinstance(default, bool):
        return f"True or False (the default is {default})"
    kind = {list: "list", tuple: "list"}.get(type(default), type(default).__name__)
    return f"of type {kind}, such as its default {default!r}"


def _got(value) -> str:
    return f"{value!r} of type {type(value).__name__}"
