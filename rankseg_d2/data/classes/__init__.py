"""Class lists of public data sets: {id, train_id, name, isthing, color, ...} by train_id."""

from pathlib import Path

from ...errors import unknown_name
from ...files import read_json

FOLDER = Path(__file__).parent


def load_classes(name: str) -> list[dict]:
    """The classes of a list such as "ade20k_150", by rising `train_id`."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        names = sorted(file.stem for file in FOLDER.glob("*.json"))
        raise unknown_name("the class list", name, names)
    classes = read_json(path)["classes"]
    return sorted(classes, key=lambda entry: entry["train_id"])
