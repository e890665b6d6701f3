"""Reading and writing files. A file is written under another name and renamed when complete."""

import glob
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

logger = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp(\..*)?")  # the name of a temporary file
_LONGEST_NAME = 255  # bytes, of nearly all file systems


def inside(folder: str | os.PathLike, name: str, where: str) -> Path:
    """folder / name; ValueError if that is no file or folder below `folder`.

    Names in lists and json files come from others. An absolute name, or one with "..", would lead
    reading, writing and deleting to other folders. `where` says what has the name.
    """
    if not isinstance(name, str) or "\0" in name or not name.replace(".", "", 1):
        raise ValueError(f"{where}: {_short(name)} is not the name of a file; fix it")
    parts = re.split(r"[/\\]", name)
    if ".." in parts or os.path.isabs(name):
        raise ValueError(
            f"{where}: the name {_short(name)} leads out of the folder {os.fspath(folder)}; make "
            "it relative to that folder, without '..'"
        )
    if max(len(part.encode(errors="replace")) for part in parts) > _LONGEST_NAME:
        raise ValueError(
            f"{where}: the name {_short(name)} is too long for a file system, which allows "
            f"{_LONGEST_NAME} bytes; shorten it"
        )
    return Path(folder, name)


def _short(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 100 else f"{text[:100]}..."


def listed(root: Path, pattern: str) -> Iterator[str]:
    """The files below `root` that match a pattern, without hidden ones."""
    return (os.path.join(root, path) for path in glob.iglob(pattern, root_dir=root))


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file with the same suffix, renamed to `path` at the end.

    Its name is random and it is made anew, so that neither a link that someone else has put there
    nor a process of another machine has the same file.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, os.fspath(temporary)):
            error.filename = os.fspath(path)  # the name that the user knows
        raise
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
    """Make the folders; remove temporary files that a killed run has left in them.

    Only for the process that holds the lock of the folders: others may be writing theirs.
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(folder):
            if _LEFTOVER.fullmatch(name):
                (folder / name).unlink(missing_ok=True)


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file; wait while another process holds it. `work` says what it is for.

    The system releases the lock if the process dies.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process that %s", work)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_image(path: str | os.PathLike, values: np.ndarray, **options) -> None:
    """Write (H, W) 8- or 16-bit values or (H, W, 3) bytes as an image; options are Pillow's."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, **options)


def check_regular(path: str | os.PathLike) -> None:
    """ValueError if the path is a folder, a pipe or a device; reading a pipe may wait forever.

    A path that is missing or not of this machine passes.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise ValueError(f"{os.fspath(path)} is {what}, not a file; remove it or name another")


def read_json(path: str | os.PathLike, open_file: Callable = open) -> Any:
    """The content of a json file; `open_file` may open remote paths too."""
    path = os.fspath(path)
    check_regular(path)
    try:
        with open_file(path, "r", encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist.") from error
    except RecursionError:
        raise ValueError(f"{path} has brackets within brackets, too many to read; "
                         "download or make the file again.") from None  # fmt: skip
    except ValueError as error:  # of json, of its encoding, or of a number with 5,000 digits
        raise ValueError(
            f"{path} is not valid json: {error}. Download or make the file again."
        ) from error


def write_json(path: str | os.PathLike, content: Any, indent: int | None = None) -> None:
    write_bytes(path, json.dumps(content, indent=indent).encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
