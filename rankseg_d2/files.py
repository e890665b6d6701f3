"""Reading and writing files. A file is written under another name and renamed when complete."""

import glob
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def listed(root: Path, pattern: str) -> Iterator[str]:
    """The files below `root` that match a pattern, without hidden ones."""
    return (os.path.join(root, path) for path in glob.iglob(pattern, root_dir=root))


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file with the same suffix, renamed to `path` at the end.

    It is new, with a name that nobody can guess, so that writing follows no link of other users.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.tmp.{path.name}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_durably(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write into, renamed to `path` when all of it is on the disk."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(os.path.dirname(os.path.abspath(path)))


def _sync_folder(folder: str) -> None:
    """Write a rename to the disk now, on systems that can (not Windows, not every NFS)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Make the folders; remove temporary files that a killed run has left in them."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp.*"):
            leftover.unlink(missing_ok=True)


def write_image(path: str | os.PathLike, values: np.ndarray, **options) -> None:
    """Write (H, W) 8- or 16-bit values or (H, W, 3) bytes as an image; options are Pillow's."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, **options)


def read_json(path: str | os.PathLike, open_file: Callable = open) -> Any:
    """The content of a json file; `open_file` may open remote paths too."""
    path = os.fspath(path)
    try:
        with open_file(path, "r", encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid json: {error}. Download or make the file again."
        ) from error


def write_json(path: str | os.PathLike, content: Any, indent: int | None = None) -> None:
    write_bytes(path, json.dumps(content, indent=indent).encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
