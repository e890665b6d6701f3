"""Work in threads while the model runs."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Work on a few images at a time; what it gives is handled in order, by the caller's thread.

    Args:
        handle: called with what each work gives.
        waiting: images that may wait for their work, so that memory does not grow.
    """

    def __init__(self, handle: Callable[[Any], None], waiting: int = 4, threads: int = 2):
        self.handle, self.waiting, self._count = handle, waiting, threads
        self._threads: ThreadPoolExecutor | None = None
        self._works: deque[Future] = deque()

    def submit(self, work: Callable, *args: Any) -> None:
        self._threads = self._threads or ThreadPoolExecutor(self._count, "evaluation")
        self._works.append(self._threads.submit(work, *args))
        self.finish(self.waiting)

    def finish(self, left: int = 0) -> None:
        """Handle results, and raise errors, of works until at most `left` of them remain."""
        while len(self._works) > left:
            self.handle(self._works.popleft().result())
