"""Files by name: found by a pattern, listed in a text file, and paired."""

import os
from pathlib import Path

from ...files import listed


def find(root: Path, pattern: str) -> dict[str, Path]:
    """Files by key, sorted: the pattern's last part is `*` (the key) and what follows the key."""
    ending = pattern.rpartition("*")[2]
    paths = sorted(listed(root, pattern))
    return {os.path.basename(path).removesuffix(ending): Path(path) for path in paths}


def read_names(path: Path) -> list[str]:
    """The names in a list of one a line."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}; it comes with the data set")
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return [name for name in names if name]


def check_pairs(names: list[str], images: dict, labels: dict, where: str) -> None:
    """Raise what a user can act on, unless all names have an image and a label map."""
    if not names:
        raise FileNotFoundError(f"{where} is empty: it has no image and no label map")
    no_image = [name for name in names if name not in images]
    no_label = [name for name in names if name not in labels]
    if no_image or no_label:
        lacks = ((no_image, "no image"), (no_label, "no label map"))
        told = [f"{what} for {len(few)} ({_first(few)})" for few, what in lacks if few]
        raise ValueError(
            f"images and label maps of {where} do not pair: of {len(names)} names, "
            f"{' and '.join(told)}; bring the missing files, or remove what is too much"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
