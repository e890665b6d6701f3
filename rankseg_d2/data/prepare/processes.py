"""Worker processes that make or read files: one pool for all, with a progress bar."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm


def usable_cpus() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    convert: Callable, todo: Sequence, total: int, title: str, workers: int
) -> Iterator[tuple]:
    """(job, convert(job)) one after the other, made by `workers` processes, with a progress bar."""
    with tqdm(total=total, initial=total - len(todo), desc=title, unit="files") as bar:
        for pair in zip(todo, _results(convert, todo, workers), strict=True):
            bar.update()
            yield pair


def _results(convert: Callable, todo: Sequence, workers: int) -> Iterator:
    if workers < 1:
        raise ValueError(f"--workers must be 1 or more; got {workers}.")
    if workers == 1 or len(todo) < 2:
        yield from map(convert, todo)
        return
    chunk = max(1, min(16, len(todo) // (4 * workers)))
    try:
        with ProcessPoolExecutor(min(workers, len(todo)), _context(), _end_with_parent) as pool:
            yield from pool.map(convert, todo, chunksize=chunk)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A worker process ended suddenly. If it was not killed or out of memory: worker "
            "processes import the running script, so put what it does under "
            "`if __name__ == \"__main__\":`, or prepare the data before (`rankseg-d2 dataset "
            "prepare`)."
        ) from error


def _context():
    """How workers start: never as forks of this process, whose threads they would not have.

    Where possible they are forks of a server, which imports torch once for all of them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rankseg_d2.data.datasets"])
    return context


def _end_with_parent() -> None:
    """In a worker: one whose parent is killed would wait, with its locks, for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
