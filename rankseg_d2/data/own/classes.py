"""The classes of an own data set: from its yaml, a file, a known list, or its json."""

import functools
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import unknown_name
from ...files import read_json
from ..classes import load_classes
from .keys import Keys
from .recognize import of_json

_FACTS = ("name", "color", "isthing")
_EXPECTED = (
    "a list of names or of {name, color, isthing}, a .txt or .json file of them, or a known list "
    "such as ade20k_150"
)


class Class(NamedTuple):
    """One class; `raw_id` is its id in the json, None without json."""

    name: str
    color: tuple[int, ...] | None = None
    isthing: bool | None = None
    raw_id: int | None = None


def read_classes(keys: Keys, names: list[str] | None = None) -> tuple[Class, ...]:
    """The classes that the key `classes` lists, or with these names, by class id."""
    value = keys.take("classes", (list, str), _EXPECTED) if names is None else names
    entries = _entries(keys, value) if isinstance(value, str) else value
    where = f"{keys.where}: classes"
    classes = tuple(_class(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    if not classes:
        raise ValueError(f"{where} is empty; list at least one name")
    names = [entry.name for entry in classes]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{where} has {name!r} twice; give each class its own name")
    if len({entry.color is None for entry in classes}) > 1:
        raise ValueError(f"{where} must all have a color, or none")
    return classes


def read_json_classes(keys: Keys, jsons: list[Path]) -> tuple[Class, ...]:
    """The categories of the json files, sorted by id, or in the order of the key `classes`.

    Only the smallest file is read; categories of the others are checked when they are loaded.
    """
    for path in jsons:
        if not path.is_file():
            raise FileNotFoundError(f"{keys.where}: labels names {path}, which does not exist")
    path = min(jsons, key=lambda path: path.stat().st_size)
    categories = _categories(path, path.stat().st_mtime_ns)
    if "classes" not in keys.values:
        return categories
    classes, known = read_classes(keys), {entry.name: entry for entry in categories}
    for entry in classes:
        if entry.name not in known:
            raise unknown_name(f"classes of {keys.where}, among the categories of {path}",
                               entry.name, known)
    missing = sorted(known.keys() - {entry.name for entry in classes})
    if missing:
        raise ValueError(f"{keys.where}: classes lacks {missing[0]!r}, a category of {path}; add "
                         "it, or leave out classes to take them all from the json")
    return tuple(_merged(entry, known[entry.name]) for entry in classes)


def _merged(entry: Class, category: Class) -> Class:
    """A class of the yaml, with missing fields from the json."""
    pairs = zip(entry, category, strict=True)
    return Class(*(in_json if in_yaml is None else in_yaml for in_yaml, in_json in pairs))


def _entries(keys: Keys, name: str) -> list:
    """The classes of a file or of a known list."""
    path = keys.beside(name)
    if path.suffix not in (".txt", ".json"):
        try:
            return [_facts(entry) for entry in load_classes(name)]
        except KeyError as error:
            raise KeyError(f"{keys.where}: classes, if not a .txt or .json file: {error.args[0]}"
                           ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{keys.where}: classes names {path}, which does not exist")
    if path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [line.strip() for line in lines if line.strip()]
    content = read_json(path)
    entries = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f'{path} must hold a list of classes, or {{"classes": [...]}}')
    return [_facts(entry) if isinstance(entry, dict) else entry for entry in entries]


def _facts(entry: dict) -> dict:
    """The fields of a class that are used; a list may have more of them."""
    return {key: entry[key] for key in _FACTS if key in entry}


def _class(entry, where: str) -> Class:
    if not isinstance(entry, dict):
        entry = {"name": entry}
    for key in entry:
        if key not in _FACTS:
            raise unknown_name(f"a key of {where}", str(key), _FACTS)
    name, color, isthing = map(entry.get, _FACTS)
    if not isinstance(name, str):
        raise ValueError(f"{where} must be a name, got {name!r}; put it in quotes")
    if color is not None and not is_color(color):
        raise ValueError(f"{where}: color must be [red, green, blue], 0 to 255, got {color!r}")
    if isthing not in (None, False, True):
        raise ValueError(f"{where}: isthing must be true or false, got {isthing!r}")
    color = None if color is None else tuple(color)
    return Class(name, color, None if isthing is None else bool(isthing))


def is_color(color: Any) -> bool:
    """Whether a value is [red, green, blue]."""
    return isinstance(color, list) and len(color) == 3 and all(
        type(part) is int and 0 <= part <= 255 for part in color
    )


@functools.lru_cache
def _categories(path: Path, modified: int) -> tuple[Class, ...]:
    """The categories of a COCO json, sorted by id; a changed file is read again."""
    content = read_json(path)
    if not isinstance(content, dict) or not content.get("categories"):
        other = of_json(content)
        raise ValueError(f"{path} is not a COCO json of labels: it has no categories"
                         + (f"; it has {other}" if other else ""))
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        classes = [_class(_facts(category), f"{path}: categories") for category in categories]
        ids = [int(category["id"]) for category in categories]
        if len(set(ids)) < len(ids):
            raise ValueError(f"{path}: two categories have one id; give each its own")
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: categories must be a list of {{id, name}}; one lacks {error}"
                         ) from error
    if len({entry.color is None for entry in classes}) > 1:
        classes = [entry._replace(color=None) for entry in classes]
    return tuple(entry._replace(raw_id=i) for entry, i in zip(classes, ids, strict=True))
