"""Which evaluators a data set gets: by its `evaluator_type`, by the config, and by what it has."""

import logging
import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .build import VIDEOS, register_evaluator
from .instance import InstanceEvaluator
from .multilabel import MultiLabelEvaluator, VideoMultiLabelEvaluator
from .panoptic import PanopticEvaluator
from .semantic import SemanticEvaluator
from .vspw import VideoSemanticEvaluator
from .ytvis import VideoInstanceEvaluator

logger = logging.getLogger(__name__)

# What data sets of a type have truth for, in the order of the results
TASKS = {
    "sem_seg": ("semantic",),
    "cityscapes_sem_seg": ("semantic",),
    "ade20k_full_sem_seg": ("semantic",),
    "ade20k_panoptic_seg": ("semantic", "panoptic", "instance"),
    "coco_panoptic_seg": ("semantic", "panoptic", "instance"),
    "cityscapes_panoptic_seg": ("semantic", "panoptic", "instance"),
    "mapillary_vistas_panoptic_seg": ("semantic", "panoptic", "instance"),
    "coco": ("instance",),
    "vspw_sem_seg": ("semantic",),
    "vss": ("semantic",),
    "ytvis": ("instance",),
}
CLASSES = {
    "semantic": SemanticEvaluator,
    "panoptic": PanopticEvaluator,
    "instance": InstanceEvaluator,
}
VIDEO_CLASSES = {"semantic": VideoSemanticEvaluator, "instance": VideoInstanceEvaluator}


def choose_evaluators(cfg, dataset_name: str, output_folder: str) -> list:
    """Those for what the model predicts and the data set has."""
    metadata = MetadataCatalog.get(dataset_name)
    possible = TASKS[metadata.evaluator_type]
    truth_key = VIDEOS.get(metadata.evaluator_type)
    classes = VIDEO_CLASSES if truth_key else CLASSES
    wanted = wanted_tasks(cfg)
    tasks = [task for task in possible if task in wanted]
    if "instance" in tasks and not truth_key and not has_instances(dataset_name, metadata):
        logger.warning(
            "%s has neither json_file nor annotations: instances are not evaluated", dataset_name
        )
        tasks.remove("instance")
    save = cfg.TEST.get("SAVE_PREDICTIONS", False)
    evaluators = [classes[task](dataset_name, output_folder, save) for task in tasks]
    if ranks_categories(cfg) and (not truth_key or has_truth(dataset_name, truth_key)):
        class_list = "thing_classes" if possible == ("instance",) else "stuff_classes"
        ranking = VideoMultiLabelEvaluator if truth_key else MultiLabelEvaluator
        evaluators.append(ranking(dataset_name, output_folder, class_list))
    if not evaluators:
        keys = ", ".join(f"{task.upper()}_ON" for task in possible)
        raise ValueError(
            f"nothing of {dataset_name!r} is to be evaluated: its evaluator_type "
            f"{metadata.evaluator_type!r} goes with {keys} of MODEL.MASK_FORMER.TEST, but only "
            f"{', '.join(f'{task.upper()}_ON' for task in sorted(wanted)) or 'none'} is True"
        )
    return evaluators


for _type in TASKS:
    register_evaluator(_type)(choose_evaluators)


def wanted_tasks(cfg) -> set[str]:
    """What the model predicts; a model that is no mask classifier labels pixels only."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" or "MASK_FORMER" not in cfg.MODEL:
        return {"semantic"}
    test = cfg.MODEL.MASK_FORMER.TEST
    return {task for task in CLASSES if test[f"{task.upper()}_ON"]}


def ranks_categories(cfg) -> bool:
    """Whether the model ranks by itself; the oracle's ranking is the truth."""
    if "RANKSEG" not in cfg.MODEL or cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return False
    return cfg.MODEL.RANKSEG.FLAG and not cfg.MODEL.RANKSEG.USE_GT


def has_instances(dataset_name: str, metadata) -> bool:
    """Whether there are true instances; FileNotFoundError if their json is not where it should be.

    It is read after the last prediction, which is late to find out.
    """
    if json_file := metadata.get("json_file"):
        if not PathManager.isfile(os.fspath(json_file)):
            raise FileNotFoundError(
                f"the ground truth of {dataset_name!r}, {json_file}, is not there; prepare the "
                "data set, or set MODEL.MASK_FORMER.TEST.INSTANCE_ON False"
            )
        return True
    return any("annotations" in record for record in DatasetCatalog.get(dataset_name)[:1])


def has_truth(dataset_name: str, key: str) -> bool:
    """Whether a record of a video has files or objects under that key; those of test may not."""
    return any(any(record.get(key, ())) for record in DatasetCatalog.get(dataset_name))
