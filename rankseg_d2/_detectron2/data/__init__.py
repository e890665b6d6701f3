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

__all__ = ["DatasetCatalog", "DatasetFromList", "DatasetMapper", "MapDataset", "Metadata"]
__all__ += ["MetadataCatalog", "ToIterableDataset", "build_batch_data_loader", "datasets"]
__all__ += ["build_detection_test_loader", "build_detection_train_loader", "detection_utils"]
__all__ += ["get_detection_dataset_dicts", "print_instances_class_histogram", "samplers"]
__all__ += ["transforms"]
