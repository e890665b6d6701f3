"""Check the entries of json files in COCO's formats; each error names the file and the entry."""

from collections import Counter
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from .mask_checks import mask_faults


def entries(content: Any, key: str, needed: Set[str], json_file: str | Path) -> list[dict]:
    """The list content[key]; ValueError unless each entry is an object with the `needed` keys."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"{json_file} has no list {key!r}; use a json of the format that is "
                         "expected here")  # fmt: skip
    for i, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise ValueError(f"{json_file}: {key}[{i}] is a {type(entry).__name__}, not an object "
                             "with keys; remove it")  # fmt: skip
        if not needed <= entry.keys():
            raise ValueError(f"{json_file}: {key}[{i}] has no {min(needed - entry.keys())}; add "
                             "it, or remove the entry")  # fmt: skip
    return found


def check_ids(
    found: Iterable[Any], what: str, json_file: str | Path, key: str = "id"
) -> None:
    """ValueError unless the ids are all numbers, or all texts, and each occurs once."""
    counts = Counter()
    for number in found:
        if not _is_id(number):
            raise ValueError(f"{json_file}: one of the {what} has the {key} {number!r}; it must be "
                             "a number or a text")  # fmt: skip
        counts[number] += 1
    if len({isinstance(number, str) for number in counts}) > 1:
        raise ValueError(f"{json_file}: {key} is a number in some of the {what} and a text in "
                         "others; use one kind")  # fmt: skip
    number, count = counts.most_common(1)[0] if counts else (None, 1)
    if count > 1:
        raise ValueError(f"{json_file}: {count} {what} have the same {key}, {number!r}; give each "
                         "its own")  # fmt: skip


def owner(entry: dict, key: str, owners: dict) -> Any:
    """The one of `owners`, by id, that entry[key] names; None if it is none of them."""
    return owners.get(entry[key]) if _is_id(entry[key]) else None


def check_size(entry: dict, where: str) -> None:
    """ValueError unless height and width are whole numbers above 0."""
    for key in ("height", "width"):
        value = entry.get(key)
        if not _is_number(value) or value != int(value) or value < 1:
            raise ValueError(f"{where} has the {key} {value!r}; it must be a whole number above 0")


def check_facts(entry: dict, where: str) -> None:
    """ValueError unless category_id, iscrowd, area and bbox, where present, are what they must."""
    if not _is_id(entry.get("category_id", 0)):
        raise ValueError(f"{where} has the category_id {entry['category_id']!r}; it must be the id "
                         "of a category")  # fmt: skip
    if entry.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{where} has the iscrowd {entry['iscrowd']!r}; it must be 0 or 1")
    area, box = entry.get("area", 0), entry.get("bbox", (0, 0, 0, 0))
    if not _is_number(area) or area < 0:
        raise ValueError(f"{where} has the area {area!r}; it must be a number of pixels")
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"{where} has the bbox {box!r}; it must be [x, y, width, height]")


def check_masks_of(
    named: list[tuple[str, Any]], sizes: list[tuple[int, int]], json_file: str | Path
) -> None:
    """ValueError if one of the (name, mask) pairs has a damaged mask; `sizes` are of the images."""
    faults = mask_faults([shape for _, shape in named], sizes)
    if faults:
        first = min(faults)
        more = f" ({len(faults)} of {len(named)} masks are damaged)" if len(faults) > 1 else ""
        raise ValueError(
            f"{json_file}: the mask of {named[first][0]} {faults[first]}{more}; fix or remove it"
        )


def usable(shape: Any) -> Any:
    """A mask without its polygons of fewer than 3 corners, which detectron2 leaves out too.

    What is no list of numbers stays, and is an error.
    """
    if not isinstance(shape, list):
        return shape
    return [
        x for x in shape
        if not isinstance(x, list) or (len(x) >= 6 and len(x) % 2 == 0)
        or not all(map(_is_number, x))
    ]  # fmt: skip


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 2**53  # so neither infinite nor NaN
