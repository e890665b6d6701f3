"""Config files: safe yaml, `_BASE_` chains, and errors that say what to write instead."""

import ast
import contextlib
import copy
import functools
import itertools
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import yaml

from .errors import cut, nearest, short

BASE_KEY = "_BASE_"
open_text = functools.partial(open, encoding="utf-8")
_MAX_DEPTH = 50  # of lists and sections in each other, and of `_BASE_` files
_MAX_VALUES = 500_000  # of a file, where each alias counts as all that it stands for
_MAX_LETTERS = 4_000_000  # of a file
_MAX_LITERAL = 10_000  # letters of a text that may be a Python literal
# Upstream's default of these is the integer 0, but fractions are allowed.
NUMBERS = {"MODEL.RANKSEG.LOSS_WEIGHT"}
# (key, word instead of a value) -> the key that is set instead, and its value.
WORDS = {("SOLVER.IMS_PER_BATCH", "auto"): ("SOLVER.FIT_MEMORY", True)}
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
) -> list[tuple[str, dict]]:
    """[(file, its keys), ...] of the `_BASE_` files of a yaml file, and of the file itself last.

    `open_file(path)` opens a file; `find_base(base, path)` is the file of a `_BASE_` in `path`.
    Later files win, so a file that several name is listed once, where it comes last.
    """
    chains = {}  # real path -> {real path: (file, its keys)}

    def read(path, inheritors):
        real_path = os.path.realpath(path)
        if real_path in inheritors:
            raise ValueError(f"{path}: {BASE_KEY} leads back to the file itself, through "
                             f"{' <- '.join(inheritors)}. Remove one of these {BASE_KEY}.")
        if len(inheritors) == _MAX_DEPTH:
            raise ValueError(f"{path}: more than {_MAX_DEPTH} files inherit from each other by "
                             f"{BASE_KEY}. Write what they set into fewer files.")
        if real_path not in chains:
            keys, chain = read_yaml(path, open_file), {}
            for base in _bases(keys, path):
                for inherited, entry in read(find_base(base, path), (*inheritors, real_path)):
                    chain.pop(inherited, None)
                    chain[inherited] = entry
            chains[real_path] = chain | {real_path: (path, keys)}
        return chains[real_path].items()

    return [entry for _, entry in read(str(path), ())]


def _bases(keys: dict, path: str) -> list[str]:
    """Remove `_BASE_` from the keys of a file; the names in it."""
    bases = keys.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(
            f"{path}: {BASE_KEY} must be a file name or a list of them, got {short(bases)}"
        )
    return bases


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
            text = file.read(_MAX_LETTERS + 1)
        if len(text) > _MAX_LETTERS:
            raise ValueError(f"{path} is larger than {_MAX_LETTERS:,} letters, so it is no config")
        keys = copy.deepcopy(_parsed(text, path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config file {path} does not exist") from error
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ValueError(f"{path}{line}: not valid yaml: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not a yaml file: it has characters other than text") from error
    if not isinstance(keys, dict | None):
        raise ValueError(f"{path} must hold lines of `KEY: value`, got {short(keys)}")
    return keys or {}


@functools.lru_cache(256)  # many configs have the same bases
def _parsed(text: str, path: str) -> Any:
    loader = _PlainLoader(text)
    loader.name = path
    return loader.get_single_data()


class _Refusal(ValueError):
    """Something that yaml allows and a config does not."""


class _PlainLoader(yaml.SafeLoader):
    """Refuses tags that plain yaml does not have, keys that come twice, and endless nesting."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._sizes = {}  # id of a composed node -> how many values it has

    def compose_node(self, parent, index):
        """A node of the document, whose size and depth are checked before it becomes a value."""
        line = self.peek_event().start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                self._refuse(line, "an alias (*name) is within what it names")
            return node
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._refuse(line, f"lists or sections are nested more than {_MAX_DEPTH} times")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.MappingNode):
            self._refuse_double_keys(node)
        self._sizes[id(node)] = size = self._size(node)
        if size > _MAX_VALUES:
            reason = f"the file, with its aliases (*name), has more than {_MAX_VALUES:,} values"
            self._refuse(line, reason)
        return node

    def _size(self, node):
        """How many values a node has; an alias counts as what it names, a long text as several."""
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // 100
        is_mapping = isinstance(node, yaml.MappingNode)
        parts = itertools.chain.from_iterable(node.value) if is_mapping else node.value
        return 1 + sum(self._sizes[id(part)] for part in parts)

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except _Refusal:
            raise
        except (ValueError, OverflowError) as error:  # of a date or a number
            self._refuse(node.start_mark.line + 1, f"{short(node.value)} is no value: {error}")

    def _refuse_double_keys(self, node):
        lines = {}
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and not key_node.tag.endswith(":merge"):
                key, line = self.construct_object(key_node), key_node.start_mark.line + 1
                if key in lines:
                    reason = f"{short(key)} comes a second time, after line {lines[key]}"
                    self._refuse(line, f"{reason}, and only one can count; remove one of them")
                lines[key] = line

    def _refuse(self, line, reason):
        raise _Refusal(f"{self.name}, line {line}: {reason}")

    def refuse_tag(self, node):
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        reason = "is refused, because config files never run code"
        instead = f"write {self._instead_of(node)} instead"
        self._refuse(node.start_mark.line + 1, f"{cut(tag)} {reason}; {instead}")

    def _instead_of(self, node) -> str:
        """The plain yaml for a tagged node, as far as it is known without running the tag."""
        if not isinstance(node, yaml.SequenceNode):
            return "the plain value"
        values = self.construct_sequence(node, deep=True)
        if node.tag.endswith("python/tuple"):
            return short(values)
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

    @property
    def value(self) -> Any:
        return self.section[self.name]


def settable_keys(section: dict, prefix: str = "") -> dict[str, Key]:
    """The keys below a config node, sections included, by full name."""
    keys = {}
    for name, default in section.items():
        keys[prefix + name] = Key(section, name, default)
        if isinstance(default, dict):
            keys |= settable_keys(default, f"{prefix}{name}.")
    return keys


def without_word(key: str, value: Any) -> tuple[str, Any]:
    """What a key and its value stand for, if the value is one of WORDS."""
    return WORDS.get((key, value), (key, value)) if isinstance(value, str) else (key, value)


def set_keys(keys: dict[str, Key], values: dict, source: str, prefix: str = "") -> None:
    """Set the nested `values`, checked against the defaults; errors name the `source`."""
    for name, value in values.items():
        full_key, value = without_word(f"{prefix}{name}", value)
        if full_key not in keys:
            raise KeyError(
                f"{source}: unknown key {cut(full_key)}; the nearest names are "
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
    if len(kinds) == 1 or (default is None and isinstance(literal, plain)):
        return literal
    if literal is None and isinstance(default, str):
        return None
    if kinds == {list, tuple}:
        return type(default)(literal)
    if isinstance(default, float) and type(literal) is int:
        with contextlib.suppress(OverflowError):
            return float(literal)
    if full_key in NUMBERS and isinstance(literal, float):
        return literal
    if isinstance(default, str) and isinstance(value, str):
        return value
    raise ValueError(f"{source}: {full_key} must be {_expected(default)}, got {_got(literal)}")


def _literal(value):
    if not isinstance(value, str) or len(value) > _MAX_LITERAL:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _expected(default) -> str:
    if isinstance(default, bool):
        return f"True or False (the default is {default})"
    kind = {list: "list", tuple: "list"}.get(type(default), type(default).__name__)
    return f"of type {kind}, such as its default {default!r}"


def _got(value) -> str:
    return f"{short(value)} of type {type(value).__name__}"
