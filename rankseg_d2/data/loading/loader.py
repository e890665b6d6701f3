"""Dataloaders that resume exactly: the seed determines every random choice, no state is saved.

(seed, iteration, rank) seed the choices of a training step: dropout, point sampling, drop path.
(seed, position in the endless stream of samples) seed those of a sample: crops, flips; the worker
process makes no difference. The seed alone determines the order of samples. When training resumes
at iteration n, the loader skips the indices of the first n batches and reads no image of them.

The weights are then equal bit by bit on CPUs, and on GPUs as far as the kernels are deterministic.
"""

import itertools
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ...errors import unknown_name
from ..formats.video_frames import flat_record
from ..mappers import build_mapper
from .records import load_records, require_labels

_STEP, _SAMPLE = 0, 1  # first word of the seeds of training steps and of samples
_MAX_REFUSALS = 1000


def seed_step(seed: int, iteration: int) -> None:
    """Seed Python, NumPy and torch, on every device, for one training step of this rank."""
    torch.manual_seed(_seed_cpu(seed, _STEP, iteration, comm.get_rank()))


@contextmanager
def _sample_seeded(seed: int, position: int) -> Iterator[None]:
    """Seed Python, NumPy and torch's CPU generator for one sample; restore them afterwards."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.default_generator.manual_seed(_seed_cpu(seed, _SAMPLE, position))
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def _seed_cpu(*words: int) -> int:
    """Seed Python and NumPy; returns the seed for torch."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(for_python))
    np.random.seed(for_numpy)
    return int(for_torch)


class ResumableLoader:
    """An endless loader of training batches (lists) that can start at any iteration.

    Args:
        build_sampler: seed -> this rank's endless sampler of indices.
        groups: the group of each element of the data set; a batch has samples of one group only.
    """

    def __init__(
        self,
        dataset: Dataset,
        mapper: Callable,
        build_sampler: Callable[[int], Iterable[int]],
        batch_size: int,
        *,
        num_workers: int = 0,
        groups: list | None = None,
    ) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.build_sampler = build_sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.groups = groups

    def batches(self, seed: int, start: int = 0) -> Iterator[list]:
        """The batches of the iterations start, start + 1, ... under a seed."""
        batches = _group(
            self.build_sampler(seed),
            self.batch_size,
            self.groups,
            comm.get_rank(),
            comm.get_world_size(),
        )
        return iter(
            DataLoader(
                _SeededDataset(self.dataset, self.mapper, seed),
                batch_sampler=itertools.islice(batches, start, None),
                num_workers=self.num_workers,
                collate_fn=_as_it_is,
                worker_init_fn=_ignore_interrupts,
            )
        )

    def __iter__(self) -> Iterator[list]:
        return self.batches(comm.shared_random_seed())


def build_train_loader(
    cfg: CfgNode,
    mapper: Callable[[dict], dict | None] | None = None,
    dataset: list[dict] | Dataset | None = None,
) -> ResumableLoader:
    """The training loader of a config; unlike detectron2's it can start at any iteration.

    Without `mapper`, INPUT.DATASET_MAPPER_NAME is used; without `dataset` (a list of dicts, or a
    map-style Dataset), DATASETS.TRAIN. DATALOADER.ASPECT_RATIO_GROUPING uses the "width" and
    "height" of the dicts and has no effect if they are missing.
    """
    mapper = build_mapper(cfg, is_train=True) if mapper is None else mapper
    if dataset is None:
        require_labels(cfg.DATASETS.TRAIN)
        dataset = load_records(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
    groups = None
    if isinstance(dataset, list):
        if cfg.DATALOADER.ASPECT_RATIO_GROUPING and all("width" in d for d in dataset):
            groups = [d["width"] > d["height"] for d in dataset]
        build_sampler = _sampler_builder(cfg, dataset)
        dataset = DatasetFromList(dataset, copy=False)
    else:
        build_sampler = _sampler_builder(cfg, range(len(dataset)))
    return ResumableLoader(
        dataset,
        mapper,
        build_sampler,
        batch_size_per_rank(cfg),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        groups=groups,
    )


def build_test_loader(
    cfg: CfgNode, dataset_name: str, mapper: Callable[[dict], dict] | None = None
) -> DataLoader:
    """detectron2's loader of a data set in order, one image or video at a time.

    Without `mapper`, that of the config is used.
    """
    mapper = build_mapper(cfg, False, dataset_name) if mapper is None else mapper
    return build_detection_test_loader(
        load_records([dataset_name]), mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )


def batch_size_per_rank(cfg: CfgNode, ranks: int | None = None) -> int:
    """SOLVER.IMS_PER_BATCH, divided by the number of ranks (by default those that run)."""
    total, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    ranks = comm.get_world_size() if ranks is None else ranks
    if parts < 1:
        raise ValueError(f"SOLVER.ACCUMULATION_STEPS must be 1 or more; got {parts}")
    if total < 1 or total % (ranks * parts):
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({total}) must be a multiple of the number of processes times "
            f"SOLVER.ACCUMULATION_STEPS ({ranks} x {parts} = {ranks * parts}); change one of them"
        )
    return total // ranks


def _sampler_builder(cfg, dicts):
    """seed -> the sampler that DATALOADER.SAMPLER_TRAIN names."""
    name, size = cfg.DATALOADER.SAMPLER_TRAIN, len(dicts)
    if name == "TrainingSampler":
        return lambda seed: TrainingSampler(size, seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            [_with_categories(record) for record in dicts],
            cfg.DATALOADER.REPEAT_THRESHOLD,
            sqrt=cfg.DATALOADER.REPEAT_SQRT,
        )
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    known = ("TrainingSampler", "RepeatFactorTrainingSampler")
    raise unknown_name("DATALOADER.SAMPLER_TRAIN", name, known)


def _with_categories(record: Any) -> dict:
    """The record of an image or video with one list of `annotations`, or of its segments."""
    if isinstance(record, dict):
        flat = flat_record(record)
        for key in ("annotations", "segments_info"):
            if key in flat:
                return {"annotations": flat[key]}
    raise ValueError(
        "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler repeats images by the categories in "
        "the annotations or segments_info of their records; the training set has neither, such as "
        "a data set of label maps. Set the key to TrainingSampler."
    )


def _group(indices, batch_size, groups, rank, world_size):
    """Batches of (position, index); positions count the samples of all ranks."""
    buckets = defaultdict(list)
    for local, index in enumerate(indices):
        bucket = buckets[groups[index] if groups else None]
        bucket.append((local * world_size + rank, index))
        if len(bucket) == batch_size:
            yield bucket[:]
            bucket.clear()


class _SeededDataset(Dataset):
    """(position, index) -> the mapped element; the position seeds its random choices."""

    def __init__(self, dataset, mapper, seed):
        self.dataset = dataset
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, position_and_index):
        position, index = position_and_index
        with _sample_seeded(self.seed, position):
            for _ in range(_MAX_REFUSALS):
                sample = self.mapper(self.dataset[index])
                if sample is not None:
                    return sample
                index = random.randrange(len(self.dataset))  # the mapper refused this one
        raise RuntimeError(
            f"the dataset mapper returned None {_MAX_REFUSALS} times in a row; check that the "
            "training set has annotations that the mapper can use"
        )


def _as_it_is(samples):
    return samples


def _ignore_interrupts(worker):
    """The main process answers Ctrl-C, and needs the workers until its step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
