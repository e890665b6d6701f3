"""Run jobs in worker processes, with a progress bar."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

_JOBS_PER_PROCESS = 300  # about as many are done in the seconds that a process takes to start


def usable_cpus() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    convert: Callable, todo: Sequence, total: int, title: str, workers: int | None
) -> Iterator[tuple]:
    """Yield (job, convert(job)) in order; `workers` processes make them.

    Without `workers`: one process per CPU, or fewer if the start of a process takes longer than its
    share of the jobs.

    total: the number of files that the progress bar shows, those already made included.
    """
    if workers is None:
        workers = min(usable_cpus(), 1 + len(todo) // _JOBS_PER_PROCESS)
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
        with ProcessPoolExecutor(min(workers, len(todo)), _context(), end_with_parent) as pool:
            yield from pool.map(convert, todo, chunksize=chunk)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A worker process ended suddenly. If it was not killed or out of memory: worker "
            "processes import the running script, so put what it does under "
            "`if __name__ == \"__main__\":`, or prepare the data before (`rankseg-d2 dataset "
            "prepare`)."
        ) from error


def _context():
    """The start method of workers: not fork, because a fork lacks this process' threads.

    A fork server, where available, imports torch and the data sets once for all workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def end_with_parent() -> None:
    """Exit this process when its parent is killed; it would wait forever and keep its locks."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
