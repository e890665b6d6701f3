"""Data sets by name, and what makes batches of them: loaders, samplers, mapper, transforms."""

# ruff: noqa: F401

from . import transforms  # isort: skip
from . import datasets, detection_utils, samplers
from .build import (
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from .catalog import DatasetCatalog, Metadata, MetadataCatalog
from .common import DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper
