"""Datasets made of lists, of other datasets with a function applied, of groups by aspect ratio."""

import copy
import pickle
import random

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class MapDataset(Dataset):
    """`map_func` of each element; where that is None, of another element drawn at random.

    Of an IterableDataset, the elements for which `map_func` is None are left out.
    """

    def __new__(cls, dataset, map_func):
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset, map_func):
        self._dataset = dataset
        self._map_func = map_func
        self._rng = random.Random(42)
        self._fallback_candidates = set(range(len(dataset)))

    def __getnewargs__(self):
        return self._dataset, self._map_func

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, idx):
        current = int(idx)
        while (data := self._map_func(self._dataset[current])) is None:
            self._fallback_candidates.discard(current)
            if not self._fallback_candidates:
                raise RuntimeError(
                    f"the mapper gave None for all {len(self)} elements of the data set; it must "
                    "accept at least one, so check its filters and the annotations"
                )
            current = self._rng.sample(list(self._fallback_candidates), k=1)[0]
        self._fallback_candidates.add(current)
        return data


class _MapIterableDataset(IterableDataset):
    def __init__(self, dataset, map_func):
        self._dataset = dataset
        self._map_func = map_func

    def __iter__(self):
        return (data for data in map(self._map_func, self._dataset) if data is not None)


class DatasetFromList(Dataset):
    """A list as a dataset.

    With `serialize` the elements are pickled into one tensor, which worker processes share
    instead of copying page after page. Without it, `copy` gives out deep copies, so that a mapper
    may change them.
    """

    def __init__(self, lst, copy=True, serialize=True):
        self._copy = copy and not serialize
        self._lst = _SerializedList(lst) if serialize else lst

    def __len__(self):
        return len(self._lst)

    def __getitem__(self, idx):
        return copy.deepcopy(self._lst[idx]) if self._copy else self._lst[idx]


class _SerializedList:
    """Pickled elements, one behind the other in a uint8 tensor."""

    def __init__(self, lst):
        pickled = [pickle.dumps(element, protocol=-1) for element in lst]
        self._bytes = torch.from_numpy(np.frombuffer(bytearray().join(pickled), dtype=np.uint8))
        self._ends = torch.tensor([len(p) for p in pickled], dtype=torch.int64).cumsum(0)

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, idx):
        end = self._ends[idx].item()
        start = self._ends[idx - 1].item() if idx % len(self) else 0
        return pickle.loads(memoryview(self._bytes[start:end].numpy()))


class ToIterableDataset(IterableDataset):
    """The elements of a map-style dataset in the order of a sampler.

    With `shard_sampler`, each worker process takes every n-th chunk of `shard_chunk_size` indices,
    so that together they give each index once; without, each runs through all of them.
    """

    def __init__(self, dataset, sampler, shard_sampler=True, shard_chunk_size=1):
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self):
        worker = get_worker_info()
        shards, shard = (worker.num_workers, worker.id) if worker and self.shard_sampler else (1, 0)
        for i, idx in enumerate(self.sampler):
            if i // self.shard_chunk_size % shards == shard:
                yield self.dataset[idx]

    def __len__(self):
        return len(self.sampler)


class AspectRatioGroupedDataset(IterableDataset):
    """Batches (lists) of dicts that are all wide or all tall, so that padding wastes less.

    The dicts of the iterable `dataset` need "width" and "height".
    """

    def __init__(self, dataset, batch_size):
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets = ([], [])

    def __iter__(self):
        for element in self.dataset:
            bucket = self._buckets[element["width"] > element["height"]]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                bucket.clear()  # before the yield: the loop may be left there
                yield batch
