"""What label images hold, and files beside them that name classes: for `dataset init`."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..formats.image_files import read_labels
from ..formats.label_colors import COLOR, as_color, color_values

_MOST = 256  # classes of a proposal
_NAMES = "the names of the classes"


def is_label_image(path: Path) -> bool:
    """Whether an image has few values or colours, as labels have and photos do not."""
    try:
        values = _values(path)
    except (ValueError, OSError):
        return False
    return len(values) <= _MOST and (max(values, default=0) < COLOR or len(values) <= 64)


def _values(path: Path) -> Counter:
    """The pixels of each raw value, or colour (label_colors.py)."""
    image = read_labels(str(path), "label image")
    pixels = np.asarray(image)
    if image.mode in ("RGB", "RGBA"):
        is_grey = (pixels[..., :1] == pixels[..., 1:3]).all()
        pixels = pixels[..., 0] if is_grey else color_values(pixels)
    if pixels.ndim != 2 or pixels.dtype.kind == "f":
        raise ValueError(f"{path} is not a label image")
    values, counts = np.unique(pixels.astype(np.int64), return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def describe_labels(files: list[Path], tree: dict) -> tuple[dict, str, str]:
    """The keys of the yaml that give the labels their meaning, what they hold, what to edit."""
    pixels = Counter()
    for path in files:
        try:
            pixels += _values(path)
        except (ValueError, OSError):
            continue  # `check` names damaged files
    colors = {value: count for value, count in pixels.items() if value >= COLOR}
    if colors:  # grey pixels of other files are colours too
        colors |= {COLOR + value * 0x10101: count for value, count in pixels.items()
                   if value < COLOR}
        return _color_keys(Counter(colors), _label_map(tree))
    values = sorted(pixels)
    if len(values) > _MOST:
        raise ValueError(f"the label images have {len(values)} values, such as {values[:3]}: they "
                         "are no classes but perhaps ids of objects, or photos")
    found = f"values {', '.join(map(str, values[:12]))}{', ...' if len(values) > 12 else ''}"
    if named := _csv_values(tree):
        return {"values": named}, found, "nothing: _classes.csv names the values"
    return {"values": _names_of(values, listed_classes(tree))}, found, (
        f"{_NAMES}; `ignore` in place of a name for pixels to ignore")


def _names_of(values: list[int], listed: list[str] | None) -> dict[int, str]:
    """A name for each value; 255 above other values is ignored, unless there are only two."""
    if len(values) == 2 and values[0] == 0 and values[1] > 1:
        return {0: "background", values[1]: "object"}
    ignored = [255] if 255 in values and 254 not in values else []
    rest = [value for value in values if value not in ignored] or values
    if rest[-1] - rest[0] < 2 * len(rest):  # the others may be in files that were not read
        rest = list(range(rest[0], rest[-1] + 1))
    if listed and rest[-1] < len(listed):
        names = dict(enumerate(listed))
    elif listed and rest[-1] == len(listed):
        names = {0: "ignore"} | dict(enumerate(listed, 1))
    else:
        names = {value: f"class_{value}" for value in rest}
    return names | {value: "ignore" for value in ignored if value not in names}


def _color_keys(pixels: Counter, named: dict[tuple, str]) -> tuple[dict, str, str]:
    colors = [tuple(as_color(value)) for value, _ in pixels.most_common()]
    found = f"with {len(colors)} colours"
    if named:
        classes = [{"name": name, "color": list(color)} for color, name in named.items()]
        return {"classes": classes}, found, "nothing: labelmap.txt names the colours"
    classes = [{"name": f"class_{i}", "color": list(color)}
               for i, color in enumerate(colors[:_MOST])]
    return {"classes": classes}, found, (
        f"{_NAMES}; move colours to ignore into `ignore: [[r, g, b], ...]`, and remove colours of "
        "smoothed edges")


def _beside(tree: dict, *names: str) -> Path | None:
    return next((path for files in tree.values() for path in files if path.name in names), None)


def listed_classes(tree: dict) -> list[str] | None:
    """The classes of a text file that lists them, one a line."""
    path = _beside(tree, "classes.txt", "obj.names")
    if path is None:
        return None
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    return names if names and len(set(names)) == len(names) else None


def _label_map(tree: dict) -> dict[tuple, str]:
    """CVAT's labelmap.txt: lines of name:red,green,blue:parts:actions."""
    path = _beside(tree, "labelmap.txt")
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path else ""
    lines = re.findall(r"^([^#:\n][^:\n]*):(\d+),(\d+),(\d+):", text, re.MULTILINE)
    return {tuple(map(int, color)): name for name, *color in lines}


def _csv_values(tree: dict) -> dict[int, str]:
    """Roboflow's _classes.csv: rows of value, name."""
    path = _beside(tree, "_classes.csv")
    if path is None:
        return {}
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = [[word.strip() for word in row] for row in csv.reader(file)]
    return {int(row[0]): row[1] for row in rows if len(row) > 1 and row[0].isdecimal()}
