"""From names of data sets to data loaders, for training and for inference."""

import itertools
import logging
import operator
from collections import Counter

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset

from ..config import configurable
from ..utils.comm import get_world_size
from ..utils.env import seed_all_rng
from . import samplers
from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper
from .detection_utils import check_metadata_consistency

logger = logging.getLogger(__name__)


def get_detection_dataset_dicts(
    names, filter_empty=True, min_keypoints=0, proposal_files=None, check_consistency=True
):
    """The records of one or several registered data sets, one behind the other.

    filter_empty: leave out images without annotations, or with crowds only.
    check_consistency: require equal thing_classes, and log how often each comes.
    """
    if min_keypoints or proposal_files:
        raise ValueError("the embedded engine has no min_keypoints, proposal_files: leave them out")
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("no data set is named: set DATASETS.TRAIN or DATASETS.TEST")
    datasets = [DatasetCatalog.get(name) for name in names]
    if any(isinstance(dataset, Dataset) for dataset in datasets):
        return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)
    for name, dataset in zip(names, datasets, strict=True):
        if not len(dataset):
            raise ValueError(f"data set {name!r} is empty: its function gave no records")
    records = list(itertools.chain.from_iterable(datasets))
    if "annotations" in records[0]:
        if filter_empty:
            records = filter_images_with_only_crowd_annotations(records)
        classes = [MetadataCatalog.get(name).get("thing_classes") for name in names]
        if check_consistency and None not in classes:
            check_metadata_consistency("thing_classes", names)
            print_instances_class_histogram(records, classes[0])
    if not records:
        raise ValueError(
            f"no image of {', '.join(names)} has usable annotations; check them, or set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS to False to train without"
        )
    return records


def filter_images_with_only_crowd_annotations(dataset_dicts):
    """The records with at least one annotation that is not a crowd."""
    kept = [d for d in dataset_dicts if any(not a.get("iscrowd", 0) for a in d["annotations"])]
    removed = len(dataset_dicts) - len(kept)
    logger.info("removed %d images without usable annotations, %d are left", removed, len(kept))
    return kept


def print_instances_class_histogram(dataset_dicts, class_names):
    """Log how many instances (without crowds) each class has."""
    annotations = itertools.chain.from_iterable(d["annotations"] for d in dataset_dicts)
    counts = Counter(a["category_id"] for a in annotations if not a.get("iscrowd", 0))
    outside = sorted(counts.keys() - range(len(class_names)))
    if outside:
        raise ValueError(f"category_id={outside[0]} is not in thing_classes, {class_names}")
    logger.info("instances: %s", {name: counts[i] for i, name in enumerate(class_names)})


def build_batch_data_loader(
    dataset,
    sampler,
    total_batch_size,
    *,
    aspect_ratio_grouping=False,
    num_workers=0,
    collate_fn=None,
    **kwargs,
):
    """A loader of batches of `total_batch_size` over all ranks, an equal part on each.

    aspect_ratio_grouping: see AspectRatioGroupedDataset, which then is the loader.
    collate_fn: from a list of elements to a batch; the list itself when None.
    Further keywords go to DataLoader.
    """
    ranks = get_world_size()
    if total_batch_size < 1 or total_batch_size % ranks:
        raise ValueError(
            f"the total batch size (SOLVER.IMS_PER_BATCH) is {total_batch_size}; it must be a "
            f"positive multiple of the number of processes, {ranks}"
        )
    batch_size = total_batch_size // ranks
    if sampler is not None:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    elif not isinstance(dataset, IterableDataset):
        raise ValueError("a map-style dataset needs a sampler, for example TrainingSampler")
    kwargs = {"num_workers": num_workers, "worker_init_fn": worker_init_reset_seed} | kwargs
    if aspect_ratio_grouping:
        # One element at a time, so that elements, not batches, fall into the groups.
        loader = DataLoader(dataset, collate_fn=operator.itemgetter(0), **kwargs)
        batches = AspectRatioGroupedDataset(loader, batch_size)
        return batches if collate_fn is None else MapDataset(batches, collate_fn)
    kwargs = {"drop_last": True, "collate_fn": collate_fn or trivial_batch_collator} | kwargs
    return DataLoader(dataset, batch_size, **kwargs)


def _train_loader_from_config(cfg, mapper=None, *, dataset=None, sampler=None):
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = _train_sampler(cfg, dataset)
    return {
        "dataset": dataset,
        "sampler": sampler,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


def _train_sampler(cfg, dataset):
    loader, name = cfg.DATALOADER, cfg.DATALOADER.SAMPLER_TRAIN
    logger.info("training sampler: %s", name)
    if name == "TrainingSampler":
        return samplers.TrainingSampler(len(dataset), seed=cfg.SEED)
    if name == "RepeatFactorTrainingSampler":
        factors = samplers.RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, loader.REPEAT_THRESHOLD, sqrt=loader.REPEAT_SQRT
        )
        return samplers.RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN={name!r} is unknown; use 'TrainingSampler' or "
        "'RepeatFactorTrainingSampler'"
    )


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset, *, mapper, sampler=None, total_batch_size, aspect_ratio_grouping=True, **kwargs
):
    """An endless loader of mapped batches (lists of dicts), from a cfg or from these arguments.

    dataset: records as a list, or a torch dataset. mapper: from record to model input.
    sampler: TrainingSampler when None. The others: see `build_batch_data_loader`.
    """
    dataset, sampler = _mapped(dataset, mapper, sampler, samplers.TrainingSampler)
    kwargs["aspect_ratio_grouping"] = aspect_ratio_grouping
    return build_batch_data_loader(dataset, sampler, total_batch_size, **kwargs)


def _mapped(dataset, mapper, sampler, default_sampler):
    """(dataset with the mapper applied, its sampler)."""
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    if mapper is not None:
        dataset = MapDataset(dataset, mapper)
    if isinstance(dataset, IterableDataset):
        if sampler is not None:
            raise ValueError("an IterableDataset has its own order: leave sampler at None")
    elif sampler is None:
        sampler = default_sampler(len(dataset))
    return dataset, sampler


def _test_loader_from_config(cfg, dataset_name, mapper=None):
    return {
        "dataset": get_detection_dataset_dicts(dataset_name, filter_empty=False),
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset, *, mapper, sampler=None, batch_size=1, num_workers=0, collate_fn=None
):
    """A loader that gives each record once over all ranks, in order, `batch_size` at a time.

    From (cfg, data set's name) or from these arguments; sampler: InferenceSampler when None.
    """
    dataset, sampler = _mapped(dataset, mapper, sampler, samplers.InferenceSampler)
    collate_fn = collate_fn or trivial_batch_collator
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate_fn
    )


def trivial_batch_collator(batch):
    """A batch is the list of its elements."""
    return batch


def worker_init_reset_seed(worker_id):
    """Seed Python's, NumPy's and torch's random numbers of a worker process, each differently."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
