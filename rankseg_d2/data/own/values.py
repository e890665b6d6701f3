"""The meaning of labels: the keys values, label_offset, ignore and background of the yaml."""

from typing import Any, NamedTuple

import numpy as np

from ...errors import unknown_name
from ..formats.labelme import IGNORED
from .classes import Class, is_color
from .keys import Keys

_LARGEST = 65535  # label images have up to 16 bits
_IGNORE = "ignore"


class Values(NamedTuple):
    """The class id, or IGNORED, of what labels hold."""

    by_value: dict[int, int] = {}  # of label images of one channel
    by_color: dict[tuple[int, ...], int] = {}  # of label images with colours
    by_label: dict[str, int] = {}  # of labelme
    background: int | None = None  # of pixels in no polygon

    def table(self, num_classes: int, ignore_label: int) -> np.ndarray | None:
        """Value -> class id, `ignore_label`, or -1 for a value without meaning.

        None if the values are already class ids and `ignore_label`.
        """
        same = {value: value for value in range(num_classes)} | {ignore_label: IGNORED}
        if not self.by_value or self.by_value == same:
            return None
        table = np.full(max(self.by_value) + 1, -1, np.int32)
        meanings = np.array(list(self.by_value.values()))
        table[list(self.by_value)] = np.where(meanings == IGNORED, ignore_label, meanings)
        return table

    def color_table(self, ignore_label: int) -> np.ndarray | None:
        """Rows of red, green, blue, and class id or `ignore_label`; None without colours."""
        rows = [(*color, ignore_label if meaning == IGNORED else meaning)
                for color, meaning in self.by_color.items()]
        return np.array(rows, np.int32) if rows else None


def ignore_label(num_classes: int) -> int:
    """The label of ignored pixels after loading: 255, or 65535 if 255 is a class."""
    return 255 if num_classes <= 255 else _LARGEST


def names_in_values(keys: Keys) -> list[str]:
    """The classes that `values` names, in the order of their first values."""
    names = keys.take("values", dict, _expected("value")).values()
    names = [_name(name, f"{keys.where}: values") for name in names]
    return [name for name in dict.fromkeys(names) if name != _IGNORE]


def image_values(keys: Keys, classes: tuple[Class, ...]) -> Values:
    """The meaning of the values and colours of label images."""
    if len(classes) > _LARGEST:
        raise ValueError(f"{keys.where}: {len(classes)} classes do not fit into label images of 16 "
                         f"bits; list at most {_LARGEST}")
    if "values" in keys.values:
        unused = sorted({"label_offset", "background"} & keys.values.keys())
        if unused:
            raise ValueError(f"{keys.where}: values replaces {unused[0]}; remove one of the two")
        by_value = _table(keys, classes, "value")
        default = []  # a table is complete
    else:
        by_value = _by_offset(keys, classes)
        default = [ignore_label(max(by_value) + 1)]
    ignored = keys.take("ignore", (int, list), "a value, a list of values, or [[r, g, b], ...]",
                        default)
    ignored = ignored if isinstance(ignored, list) else [ignored]
    by_color = _by_color(classes)
    for value in ignored:
        table, key = (by_color, tuple(value)) if is_color(value) else (by_value, value)
        if table is by_value:
            _check_value(value, f"{keys.where}: ignore")
        if table.get(key, IGNORED) != IGNORED:
            raise ValueError(f"{keys.where}: ignore has {value}, which is the class "
                             f"{classes[table[key]].name!r}; remove one of the two")
        table[key] = IGNORED
    return Values(by_value, by_color)


def _by_offset(keys: Keys, classes: tuple[Class, ...]) -> dict[int, int]:
    """The values by `label_offset` and `background`."""
    offset = keys.take("label_offset", int, "a whole number, value - class id", 0)
    if not 0 <= offset <= _LARGEST + 1 - len(classes):
        raise ValueError(f"{keys.where}: label_offset must be 0 or more, and no class above "
                         f"{_LARGEST}, the largest value of 16 bits; got {offset}")
    by_value = {offset + i: i for i in range(len(classes))}
    background = keys.take("background", str, "`ignore` or the name of a class", None)
    if background is None:
        return by_value
    if offset == 0:
        raise ValueError(f"{keys.where}: background is the meaning of the value 0, but with "
                         f"label_offset 0 that is the class {classes[0].name!r}; set "
                         "label_offset: 1, or remove background")
    where = f"{keys.where}: background, if not `ignore`,"
    return by_value | {0: _meaning(background, ids_by_name(classes), where)}


def _by_color(classes: tuple[Class, ...]) -> dict[tuple[int, ...], int]:
    """The class of each colour; colours that two classes share are left out."""
    by_color, shared = {}, set()
    for i, entry in enumerate(classes):
        if entry.color in by_color:
            shared.add(entry.color)
        elif entry.color is not None:
            by_color[entry.color] = i
    return {color: i for color, i in by_color.items() if color not in shared}


def label_values(keys: Keys, classes: tuple[Class, ...]) -> Values:
    """The meaning of labelme's labels; those that `values` does not have are names of classes."""
    known = ids_by_name(classes)
    return Values(by_label=known | _table(keys, classes, "label") if "values" in keys.values
                  else known)


def _table(keys: Keys, classes: tuple[Class, ...], kind: str) -> dict[Any, int]:
    """The class id, or IGNORED, of each key of `values`."""
    values, known = keys.take("values", dict, _expected(kind)), ids_by_name(classes)
    where = f"{keys.where}: values"
    if not values:
        raise ValueError(f"{where} is empty; it must be {_expected(kind)}")
    for value in values:
        if kind == "value":
            _check_value(value, where)
        elif not isinstance(value, str):
            raise ValueError(f"{where} must have labels, got {value!r}; put it in quotes")
    return {value: _meaning(_name(name, f"{where}[{value}]"), known, f"{where}[{value}]")
            for value, name in values.items()}


def _expected(kind: str) -> str:
    return f"{{{kind}: name of a class or ignore, ...}}"


def _name(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{where} must be the name of a class or `ignore`, got {name!r}; put it "
                         "in quotes")
    return name


def _check_value(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(f"{where} must have whole numbers from 0 to {_LARGEST}, got {value!r}")


def _meaning(name: str, known: dict[str, int], where: str) -> int:
    if name == _IGNORE:
        return IGNORED
    if name not in known:
        raise unknown_name(where, name, [*known, _IGNORE])
    return known[name]


def ids_by_name(classes: tuple[Class, ...]) -> dict[str, int]:
    """The class id of each name."""
    return {entry.name: i for i, entry in enumerate(classes)}
