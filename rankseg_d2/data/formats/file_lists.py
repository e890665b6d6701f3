"""Find files by a pattern, read lists of names, and pair images with label maps."""

import os
from collections.abc import Iterable
from pathlib import Path

from ...files import check_regular, inside, listed


def find(root: Path, pattern: str) -> dict[str, Path]:
    """Files by key, sorted; the last part of `pattern` is `*`, the key, and a fixed ending."""
    ending = pattern.rpartition("*")[2]
    paths = sorted(listed(root, pattern))
    return {os.path.basename(path).removesuffix(ending): Path(path) for path in paths}


def read_names(path: Path) -> list[str]:
    """The names in a text file, one per line; each stays in its folder."""
    if not path.is_file():
        raise FileNotFoundError(f"the list {path} does not exist; it comes with the data set")
    check_regular(path)
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    names = [name for name in names if name]
    for name in names:
        inside(path.parent, name, str(path))
    return names


def read_stems(path: Path) -> list[str]:
    """The names in a text file, without the ending .jpg or .png."""
    return [name.removesuffix(".jpg").removesuffix(".png") for name in read_names(path)]


def check_pairs(names: list[str], images: dict, labels: dict, where: str) -> None:
    """Raise an error that names the files, unless each name has an image and a label map."""
    if not names:
        raise FileNotFoundError(f"{where} is empty: it has no image and no label map")
    no_image = [name for name in names if name not in images]
    no_label = [name for name in names if name not in labels]
    if no_image or no_label:
        lacks = ((no_image, "no image"), (no_label, "no label map"))
        parts = [f"{what} for {len(few)} ({_first(few)})" for few, what in lacks if few]
        raise ValueError(
            f"images and label maps of {where} do not pair: of {len(names)} names, "
            f"{' and '.join(parts)}; add the missing files or delete the extra ones"
        )


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the paths that do not exist; folders are listed, which is faster than asking."""
    paths = list(paths)
    folders = {os.path.dirname(path) for path in paths}
    found = {folder: set(os.listdir(folder)) if os.path.isdir(folder) else set()
             for folder in folders}  # fmt: skip
    return [path for path in paths if os.path.basename(path) not in found[os.path.dirname(path)]]


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
