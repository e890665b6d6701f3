"""Images decoded by threads, a few ahead of the model, and put into batches of one size."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .sources import Item

Read = np.ndarray | Exception  # the pixels (H, W, 3) of an image, or the error of reading them
Entry = tuple[int, Item, Read]  # with the number of the image in its source


def read_ahead(items: Iterable[Item], threads: int, ahead: int) -> Iterator[tuple[Item, Read]]:
    """Each item and its pixels, or the error of reading them; at most `ahead` wait decoded."""
    pool = ThreadPoolExecutor(threads, "read ahead")
    waiting: deque[tuple[Item, Future]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_read, item)))
            if len(waiting) > ahead:
                one, pixels = waiting.popleft()
                yield one, pixels.result()
        while waiting:
            one, pixels = waiting.popleft()
            yield one, pixels.result()
    finally:  # also where the caller takes no more
        pool.shutdown(cancel_futures=True)


def _read(item: Item) -> Read:
    try:
        return item.read()
    except Exception as error:
        return error


def batches(
    read: Iterable[tuple[Item, Read]], size: int, window: int = 4
) -> Iterator[list[list[Entry]]]:
    """Groups of `window` batches; in each, batches of images of one size, with their numbers.

    An error takes the place of its item's pixels, in a batch of its own.
    """
    group: list[Entry] = []
    for number, (item, pixels) in enumerate(read):
        group.append((number, item, pixels))
        if len(group) == (size if size == 1 else size * window):
            yield _by_size(group, size)
            group = []
    if group:
        yield _by_size(group, size)


def _by_size(group: list[Entry], size: int) -> list[list[Entry]]:
    by_shape: dict[tuple[int, ...], list[Entry]] = {}
    for entry in group:
        number, _, pixels = entry
        key = pixels.shape if isinstance(pixels, np.ndarray) else (number,)
        by_shape.setdefault(key, []).append(entry)
    found = [same[i : i + size] for same in by_shape.values() for i in range(0, len(same), size)]
    return sorted(found, key=lambda batch: batch[0][0])
