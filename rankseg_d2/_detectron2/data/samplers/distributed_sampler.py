"""Samplers that know rank and world size: endless ones for training, one pass for inference."""

import itertools
from collections import Counter

import torch
from torch.utils.data import Sampler

from ...utils import comm

__all__ = ["InferenceSampler", "RepeatFactorTrainingSampler", "TrainingSampler"]


class TrainingSampler(Sampler):
    """An endless stream of indices: one shuffled pass after the other, shared out over the ranks.

    All ranks draw the same stream from `seed` (agreed upon between them when None), and each takes
    every world_size-th index of it.
    """

    def __init__(self, size, shuffle=True, seed=None):
        if not isinstance(size, int) or size <= 0:
            raise ValueError(f"{type(self).__name__}: size must be a positive int, got {size!r}")
        self._size = size
        self._shuffle = shuffle
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self):
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self):
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            indices = self._get_epoch_indices(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def _get_epoch_indices(self, generator):
        """The indices of one pass, ascending: (size,)."""
        return torch.arange(self._size)


class RepeatFactorTrainingSampler(TrainingSampler):
    """TrainingSampler in which index i comes `repeat_factors[i]` times per pass on average.

    The fraction of a factor is rounded up or down at random in every pass.
    """

    def __init__(self, repeat_factors, *, shuffle=True, seed=None):
        super().__init__(len(repeat_factors), shuffle, seed)
        self._int_part = torch.trunc(repeat_factors)
        self._frac_part = repeat_factors - self._int_part

    @staticmethod
    def repeat_factors_from_category_frequency(dataset_dicts, repeat_thresh, sqrt=True):
        """Each image's factor, the largest max(1, sqrt(repeat_thresh / f)) of its categories: (N,).

        f is the share of images that have the category; without `sqrt`, the plain quotient.
        """
        categories = [{a["category_id"] for a in d["annotations"]} for d in dataset_dicts]
        images = Counter(itertools.chain.from_iterable(categories))
        share = {category: count / len(dataset_dicts) for category, count in images.items()}
        power = 0.5 if sqrt else 1.0
        factors = {c: max(1.0, (repeat_thresh / f) ** power) for c, f in share.items()}
        per_image = [max((factors[c] for c in ids), default=1.0) for ids in categories]
        return torch.tensor(per_image, dtype=torch.float32)

    def _get_epoch_indices(self, generator):
        rounded_up = torch.rand(len(self._frac_part), generator=generator) < self._frac_part
        repeats = (self._int_part + rounded_up).long()
        return torch.arange(self._size).repeat_interleave(repeats)


class InferenceSampler(Sampler):
    """Every index once over all ranks: each rank has one contiguous piece, of nearly equal size."""

    def __init__(self, size):
        if size <= 0:
            raise ValueError(f"InferenceSampler: size must be positive, got {size}")
        rank = comm.get_rank()
        share, left_over = divmod(size, comm.get_world_size())
        start = rank * share + min(rank, left_over)
        self._local_indices = range(start, start + share + (rank < left_over))

    def __iter__(self):
        yield from self._local_indices

    def __len__(self):
        return len(self._local_indices)
