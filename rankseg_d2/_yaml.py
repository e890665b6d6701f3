"""Config files without surprises: safe yaml, `_BASE_` chains, and errors that name the mend."""

import ast
import copy
import functools
import os
import re
from typing import Any, NamedTuple

import yaml

from .errors import nearest

BASE_KEY = "_BASE_"
open_text = functools.partial(open, encoding="utf-8")
# Upstream's default of these is the integer 0, but fractions are as meaningful.
NUMBERS = {"MODEL.RANKSEG.LOSS_WEIGHT"}
# What upstream's files compute in a tag: [int(x * 0.1 * 512) for x in range(5, 21)]
_SIZES = re.compile(
    r"\[ *int\( *(\w+) *\* *(\d*\.?\d+) *\* *(\d+) *\) +for +\1 +in +"
    r"range\( *(\d{1,3}) *, *(\d{1,3}) *\) *\]"
)


def beside(base: str, path: str) -> str:
    """The file that `_BASE_: base` means in `path`: an address, absolute, or in its folder."""
    base = os.path.expanduser(base)
    return base if "://" in base else os.path.join(os.path.dirname(path), base)


def read_chain(path, open_file=open_text, find_base=beside, inheritors=()):
    """[(file, its keys), ...] of the `_BASE_` files of a yaml file, and of the file itself last.

    `open_file(path)` gives the text stream; `find_base(base, path)` the file of a base.
    """
    path = str(path)
    real_path = os.path.realpath(path)
    if real_path in inheritors:
        raise ValueError(f"{path}: {BASE_KEY} leads back to the file itself, by way of "
                         f"{' <- '.join(inheritors)}; remove one of these {BASE_KEY}")
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
    """The keys of a chain as one dict, where later files win."""
    merged = {}
    for path, keys in chain:
        _merge(keys, merged, path)
    return merged


def _merge(keys: dict, into: dict, path: str) -> None:
    for name, value in keys.items():
        if isinstance(value, dict) and name in into:
            if not isinstance(into[name], dict):
                raise ValueError(f"{path}: {name} is a section here and a value in its {BASE_KEY}")
            _merge(value, into[name], path)
        else:
            into[name] = copy.deepcopy(value)  # an anchor's sections are one dict until here


def pop_version(keys: dict, path: str) -> None:
    """Remove VERSION; what differs between versions 1 and 2 shows as an unknown key."""
    version = keys.pop("VERSION", 2)
    if version not in (1, 2):
        raise ValueError(f"{path}: VERSION must be 2 (or left out), got {version!r}")


def read_yaml(path: str, open_file=open_text) -> dict:
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
        raise ValueError(f"{path} is not a yaml file, for it holds more than text") from error
    if not isinstance(keys, dict | None):
        raise ValueError(f"{path} must hold lines of `KEY: value`, got {_came(keys)}")
    return keys or {}


class _PlainLoader(yaml.SafeLoader):
    """Refuses every tag that plain yaml does not have."""

    def refuse_tag(self, node):
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise ValueError(
            f"{self.name}, line {node.start_mark.line + 1}: {tag} is refused, because config "
            f"files never run code; write {self.instead_of(node)} instead"
        )

    def instead_of(self, node) -> str:
        """The plain yaml for a tagged node, where it can be told without running anything."""
        if not isinstance(node, yaml.SequenceNode):
            return "the plain value"
        values = self.construct_sequence(node, deep=True)
        if node.tag.endswith("python/tuple"):
            return str(values)
        sizes = _SIZES.fullmatch(values[0].strip()) if _is_text(values) else None
        if sizes is None:
            return "the values that it stands for, such as [256, 512],"
        _, factor, size, start, stop = sizes.groups()
        return str([int(x * float(factor) * int(size)) for x in range(int(start), int(stop))])


_PlainLoader.add_constructor(None, _PlainLoader.refuse_tag)


def _is_text(values: list) -> bool:
    return len(values) == 1 and isinstance(values[0], str)


class Key(NamedTuple):
    """Where a config key lives: `section[name]`, and the default that it had."""

    section: dict
    name: str
    default: Any


def settable_keys(section: dict, prefix: str = "") -> dict[str, Key]:
    """Every full key below a config node, sections included."""
    keys = {}
    for name, default in section.items():
        keys[prefix + name] = Key(section, name, default)
        if isinstance(default, dict):
            keys |= settable_keys(default, f"{prefix}{name}.")
    return keys


def set_keys(keys: dict[str, Key], values: dict, source: str, prefix: str = "") -> None:
    """Set the nested `values`, checked against the defaults; `source` is named in errors."""
    for name, value in values.items():
        full_key = f"{prefix}{name}"
        if full_key not in keys:
            raise KeyError(
                f"{source}: unknown key {full_key}; the nearest known ones are "
                f"{', '.join(nearest(full_key, keys))}"
            )
        key = keys[full_key]
        if isinstance(key.default, dict) and isinstance(value, dict):
            set_keys(keys, value, source, full_key + ".")
        else:
            key.section[key.name] = _checked(value, key.default, full_key, source)


def _checked(value, default, full_key: str, source: str):
    """`value` in the type of `default`; text is read as a Python literal where it is one."""
    if isinstance(default, dict):
        names = ", ".join(f"{full_key}.{name}" for name in list(default)[:3])
        raise ValueError(f"{source}: {full_key} is a section with keys such as {names}, "
                         f"got {_came(value)}")
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
    raise ValueError(f"{source}: {full_key} must be {_expected(default)}, got {_came(literal)}")


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


def _came(value) -> str:
    return f"{value!r} of type {type(value).__name__}"
