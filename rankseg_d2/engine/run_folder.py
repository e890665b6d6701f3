"""OUTPUT_DIR: whether it can be written, whose it is, and which checkpoint in it is whole."""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import nn

logger = logging.getLogger(__name__)

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
TAG, LOCK = "last_checkpoint", ".lock"
_PROBE = 2**20  # bytes that are written to see whether a disk takes them
_warned: set[str | os.PathLike] = set()  # files that could not be made
_locks: dict[str, int] = {}  # folder -> the open file of its lock, until this process ends


def last_checkpoint(folder: str) -> str | None:
    """The path that `last_checkpoint` in a folder names, whole or not; None without such a file."""
    tag = Path(folder) / TAG
    if tag.is_dir():
        raise ValueError(
            f"{tag} should be a file, the name of a checkpoint, but is a folder; remove it"
        )
    if not tag.is_file():
        return None
    name = tag.read_bytes().decode(errors="replace").strip().replace("\0", "�")
    return os.path.join(folder, name)


def what_is_whole(folder: str) -> str:
    """How to go on after a checkpoint could not be written, for the end of an error."""
    last = last_checkpoint(folder)
    if last is None:
        return "the folder has no checkpoint yet: start again"
    return f"{last} is whole: go on from it with --resume"


class DiskError(RuntimeError):
    """A file of OUTPUT_DIR could not be written."""


@contextlib.contextmanager
def writing(path: str, folder: str) -> Iterator[None]:
    """One sentence of a full or failing disk: the file, and what is whole in the folder."""
    try:
        yield
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:  # torch raises its own, caused by that of the disk
        cause = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None or cause.errno not in _OF_DISKS:
            raise
        raise DiskError(
            f"{cause.filename or path} could not be written: {cause.strerror}; make room for it; "
            f"{what_is_whole(folder)}"
        ) from error


@contextlib.contextmanager
def warning_of(path: str | os.PathLike) -> Iterator[None]:
    """One warning where a file that only shows something cannot be made; the run goes on."""
    try:
        yield
    except Exception as error:  # whatever it is, it must not end a training
        if path not in _warned:
            _warned.add(path)
            logger.warning("%s cannot be made: %s: %s", path, type(error).__name__, error)
            logger.debug("the error", exc_info=error)


def check_writable(folder: str) -> None:
    """Make the folder and write there, so that a long training does not end in an error."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise RuntimeError(
            f"OUTPUT_DIR {folder!r} cannot be written ({error.strerror}); {room}set OUTPUT_DIR to "
            "a folder where you may write"
        ) from error
    last_checkpoint(folder)


def check_room(folder: str, model: nn.Module, has_average: bool = False) -> None:
    """RuntimeError where a checkpoint would not fit: weights, AdamW's two moments, the average."""
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    needed = (3 + has_average) * weights
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RuntimeError(
            f"OUTPUT_DIR {folder!r} has room for {free / 2**20:,.0f} MB, but a checkpoint needs "
            f"{needed / 2**20:,.0f} MB; make room, or set OUTPUT_DIR to a folder on another disk"
        )


def lock(folder: str, keep: bool = True) -> None:
    """RuntimeError where another training holds the folder; else hold it, until this process ends.

    The lock is the system's: it ends with the process, however that ends, and holds on shared
    folders too, as far as they have locks. On those without, nothing is locked.
    """
    path = os.path.join(os.path.realpath(folder), LOCK)
    if path in _locks:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if keep:
            _locks[path] = file
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.read(file, 200).decode(errors="replace").strip()
            raise RuntimeError(
                f"another training writes to OUTPUT_DIR {folder!r} ({holder or 'its process'} "
                "runs); wait for its end, or set another OUTPUT_DIR"
            ) from error
    finally:
        if path not in _locks:
            os.close(file)
