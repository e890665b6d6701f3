"""Logs on the console and in one file per process; messages that do not flood."""

import atexit
import logging
import os
import sys
import time
from collections import Counter
from functools import cache

from termcolor import colored

from .file_io import PathManager

__all__ = ["setup_logger", "log_first_n", "log_every_n_seconds"]

_EMBEDDED = __package__.removesuffix(".utils")
_counts = Counter()
_last_times = {}

# What the embedded modules log belongs to the logger "detectron2", as its settings and handlers
# do. The outer package's logger must exist first, or its creation would undo the link.
logging.getLogger(_EMBEDDED.partition(".")[0])
logging.getLogger(_EMBEDDED).parent = logging.getLogger("detectron2")


@cache
def setup_logger(
    output=None,
    distributed_rank=0,
    *,
    color=True,
    name="detectron2",
    abbrev_name=None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
):
    """The logger `name` at level DEBUG: rank 0 writes to the console, every rank to its file.

    `output` is a folder (the file is log.txt) or a file that ends in .txt or .log; ranks above 0
    append ".rank<n>". On the console `abbrev_name` stands for `name` (for detectron2: d2).
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name
    handlers = []
    if configure_stdout and distributed_rank == 0:
        handlers.append((sys.stdout, _Formatter((name, abbrev_name) if color else None)))
    if output is not None:
        handlers.append((_open_log(_log_file(str(output), distributed_rank)), _Formatter()))
    present = {getattr(handler, "stream", None) for handler in logger.handlers}
    for stream, formatter in handlers:
        if stream not in present:
            handler = logging.StreamHandler(stream)
            handler.setLevel(logging.DEBUG)
            handler.setFormatter(formatter)
            logger.addHandler(handler)
    return logger


def log_first_n(lvl, msg, n=1, *, name=None, key="caller"):
    """Log the first `n` times; "caller" counts by line of code, "message" by text, or by both."""
    module, caller = _caller()
    keys = (key,) if isinstance(key, str) else tuple(key)
    if not keys or not set(keys) <= {"caller", "message"}:
        raise ValueError(f"key of log_first_n must be 'caller', 'message' or both, not {key!r}")
    counted = (caller if "caller" in keys else None, msg if "message" in keys else None)
    _counts[counted] += 1
    if _counts[counted] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl, msg, n=1, *, name=None):
    """Log this line of code the first time and then not again within `n` seconds."""
    module, caller = _caller()
    now = time.monotonic()
    if now - _last_times.get(caller, -float("inf")) >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_times[caller] = now


class _Formatter(logging.Formatter):
    """Lines of a file, with full names; or with `short=(name, abbreviation)`, of the console.

    What the embedded modules log appears under detectron2's names.
    """

    def __init__(self, short=None):
        self._short = short and [part and part + "." for part in short]
        green = colored("[%(asctime)s %(name)s]: ", "green")
        head = green if short else "[%(asctime)s] %(name)s %(levelname)s: "
        super().__init__(head + "%(message)s", datefmt="%m/%d %H:%M:%S")

    def formatMessage(self, record):
        record.name = full_name = record.name.replace(_EMBEDDED, "detectron2", 1)
        if not self._short:
            return super().formatMessage(record)
        record.name = full_name.replace(*self._short, 1)
        line = super().formatMessage(record)
        record.name = full_name  # the same record goes to the file next
        if record.levelno < logging.WARNING:
            return line
        attribute = "blink" if record.levelno == logging.WARNING else "underline"
        return f"{colored(record.levelname, 'red', attrs=[attribute])} {line}"


def _log_file(output: str, rank: int) -> str:
    is_file = output.endswith((".txt", ".log"))
    path = output if is_file else os.path.join(output, "log.txt")
    PathManager.mkdirs(os.path.dirname(path) or ".")
    return f"{path}.rank{rank}" if rank else path


@cache
def _open_log(path):
    """One stream per file, for all the loggers that write to it; each line is written at once."""
    stream = PathManager.open(path, "a", buffering=1)
    atexit.register(stream.close)
    return stream


def _caller():
    """Module name and (file, line, function) of the first frame outside this file."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "detectron2")
    module = "detectron2" if module == "__main__" else module
    return module, (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
