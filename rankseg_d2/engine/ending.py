"""How a run ends: an error as one sentence, Ctrl-C after a whole step.

The traceback of an error is in log.txt of OUTPUT_DIR, and with RANKSEG_TRACEBACK=1 on the console.
"""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from ..errors import INTERRUPTED, sentence, shows_tracebacks

logger = logging.getLogger(__name__)


class Failure(Exception):
    """The sentence with which a started process ends, for the process that has started it."""


def end_in_a_sentence(prog: str, run: Callable[[], object]) -> None:
    """Call `run`; where it fails, write `prog: error: ...` and end with status 1, or 130."""
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if getattr(error, "exit_code", None) == INTERRUPTED:  # of a process of --num-gpus
            sys.exit(INTERRUPTED)
        if shows_tracebacks():
            raise
        log_traceback(error)
        sys.stderr.write(f"{prog}: error: {_of_a_process(error) or sentence(error)}\n")
        sys.exit(1)


def log_traceback(error: Exception) -> None:
    """Write the traceback to log.txt, where `setup` has opened it."""
    if logging.getLogger("rankseg_d2").handlers:
        logger.error("The run ends by an error", exc_info=error)


def hide_tracebacks(log: logging.Logger) -> None:
    """Keep tracebacks off the console; the files of the log have them."""
    for handler in log.handlers:
        if getattr(handler, "stream", None) is sys.stdout:
            handler.addFilter(lambda record: not record.exc_info or shows_tracebacks())


def _of_a_process(error: Exception) -> str | None:
    """The sentence of a process of --num-gpus, out of the error that torch makes of it."""
    found = re.search(rf"^{Failure.__module__}\.Failure: (.*)", str(error), re.MULTILINE)
    return found and found[1]


class Interrupt:
    """Ctrl-C within `with`: the first one asks for an end, a second one is KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_asked = False
        self._at_once = False
        self._time = 0.0
        self._process = os.getpid()

    def __enter__(self) -> "Interrupt":
        self._previous = signal.getsignal(signal.SIGINT)
        is_main = threading.current_thread() is threading.main_thread()
        self._is_set = is_main and self._previous is not signal.SIG_IGN  # as after & in a script
        if self._is_set:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_) -> None:
        if self._is_set:
            signal.signal(signal.SIGINT, self._previous)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this, the first Ctrl-C is KeyboardInterrupt too."""
        if self.is_asked:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, *_):
        if os.getpid() != self._process:  # a worker of a dataloader: its parent ends it
            return
        if self.is_asked and time.monotonic() - self._time < 1:
            return  # the same one, sent by the terminal and by the launcher
        is_second, self.is_asked, self._time = self.is_asked, True, time.monotonic()
        if is_second or self._at_once:
            raise KeyboardInterrupt
        # Not the log, in whose lock this may have come.
        os.write(2, b"\nCtrl-C: a checkpoint is saved after this step; once more to end at once\n")
