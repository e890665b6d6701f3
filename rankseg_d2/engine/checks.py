"""What must be true of a config before a run starts."""

import os
import tempfile
from argparse import Namespace

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..data.loading.records import require_labels
from ..data.own.config_defaults import register_files
from ..errors import nearest
from ..modeling.meta_arch import model_class
from ..tasks import class_list
from .launch import check_num_gpus


def check_run(cfg: CfgNode, args: Namespace) -> None:
    """Raise the error of a run that cannot start, before any process is started or model built."""
    check_num_gpus(args.num_gpus)
    check_datasets(cfg)
    if not args.eval_only:
        require_labels(cfg.DATASETS.TRAIN)
    check_num_classes(cfg)
    check_output_dir(cfg.OUTPUT_DIR)


def check_output_dir(path: str) -> None:
    """Make the folder and try to write there, so that a long training does not end in an error."""
    if not comm.is_main_process():
        return
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RuntimeError(
            f"OUTPUT_DIR {path!r} cannot be written ({error.strerror}); "
            "set OUTPUT_DIR to a folder where you may write"
        ) from error


def check_datasets(cfg: CfgNode) -> None:
    """Raise KeyError if DATASETS.TRAIN or DATASETS.TEST names a data set that is not registered."""
    register_files(cfg)
    registered = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in registered:
                near = ", ".join(nearest(name, registered)) or "none, as no data set is registered"
                raise KeyError(
                    f"DATASETS.{key}: data set {name!r} is not registered; the nearest names are "
                    f"{near}. Register it with DatasetCatalog.register."
                )


def check_num_classes(cfg: CfgNode) -> None:
    """Raise ValueError if a data set of DATASETS does not have NUM_CLASSES classes.

    Data sets without class names, and models of other projects, are not checked.
    """
    if model_class(cfg) is None:
        return
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for key in ("TRAIN", "TEST"):
        for dataset in cfg.DATASETS[key]:
            names = _class_names(cfg, dataset)
            if names is not None and len(names) != num_classes:
                raise ValueError(
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, but the data set {dataset} "
                    f"of DATASETS.{key} has {len(names)} {class_list(cfg)} in its metadata; set "
                    f"the key to {len(names)}, or choose another data set"
                )


def class_names(cfg: CfgNode) -> list[str] | None:
    """The names of the classes that the model learns, from DATASETS.TRAIN; None if unknown."""
    found = (_class_names(cfg, dataset) for dataset in cfg.DATASETS.TRAIN)
    return next((list(names) for names in found if names is not None), None)


def _class_names(cfg: CfgNode, dataset: str) -> list[str] | None:
    if dataset not in MetadataCatalog.list():
        return None
    return MetadataCatalog.get(dataset).get(class_list(cfg))
