"""Class lists of public data sets: one json each, of {id, train_id, name, isthing, color, ...}."""

from pathlib import Path

from ...errors import unknown_name
from ...files import read_json

__all__ = ["load_classes", "load_flip_pairs"]

_FOLDER = Path(__file__).parent


def load_classes(name: str) -> list[dict]:
    """The classes of a list such as "ade20k_150", sorted by `train_id`."""
    return sorted(_read(name)["classes"], key=lambda entry: entry["train_id"])


def load_flip_pairs(name: str) -> tuple[tuple[int, int], ...]:
    """The pairs of classes that a mirrored image exchanges, such as left and right arm."""
    return tuple(tuple(pair) for pair in _read(name).get("flip_pairs", ()))


def _read(name: str) -> dict:
    path = _FOLDER / f"{name}.json"
    if not path.is_file():
        names = sorted(file.stem for file in _FOLDER.glob("*.json"))
        raise unknown_name("the class list", name, names)
    return read_json(path)
