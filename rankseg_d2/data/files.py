"""Lists of files, and files that are whole or not there: written under another name, renamed."""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def listed(root: Path, pattern: str) -> Iterator[str]:
    """The files below `root` that a pattern finds; hidden ones are left out."""
    return (os.path.join(root, path) for path in glob.iglob(pattern, root_dir=root))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix; it takes the place of `path` at the end."""
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Make the folders, without the temporary files of a run that was killed in them."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp.*"):
            leftover.unlink()


def write_image(path: Path, values: np.ndarray) -> None:
    """An image file of (H, W) 8- or 16-bit values or (H, W, 3) bytes."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary)


def write_json(path: Path, content) -> None:
    write_bytes(path, json.dumps(content).encode())


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
