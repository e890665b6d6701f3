"""The tasks, one row each, and which of them the labels of a data set serve.

A new task is a row here, a function that makes its targets, and an evaluator. No other code asks
which task it is. Functions and classes are given by name and imported when needed, so this file
imports nothing of the package.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Named = str | Callable  # "module:attribute" below rankseg_d2, or the function or class itself


@dataclass(frozen=True)
class Task:
    """A task that a model can learn and predict."""

    label_key: str  # key of an image's record: its labels, or their file
    present_keys: tuple[str, ...]  # keys of a record that give its categories, preferred first
    class_list: str  # key of the metadata: the names of the classes
    switch: str  # key of MODEL.MASK_FORMER.TEST: whether the model predicts the task
    target: Named  # Augmented -> classes, masks
    scan: Named  # record, Meaning -> content of its labels, for `rankseg-d2 dataset check`
    evaluator: Named
    clip_target: Named | None = None  # list of Augmented -> ids, classes, masks of each frame
    video_evaluator: Named | None = None


@dataclass(frozen=True)
class Labels:
    """A kind of labels that an own data set can have (docs/own_data.md)."""

    evaluator_type: str  # for the metadata
    find_records: str  # OwnData, Split -> records, faults
    are_images: bool = False  # label images, not a json
    only_things: bool = False


_TARGETS, _CLIPS = "data.mappers.targets", "data.mappers.videos"
_SCANS, _PAIRS = "data.checks.scan", "data.own.pairing"

TASKS = {  # in the order of the results
    "semantic": Task(
        label_key="sem_seg_file_name",
        present_keys=("sem_seg_file_name", "segments_info"),
        class_list="stuff_classes",
        switch="SEMANTIC_ON",
        target=f"{_TARGETS}:semantic_target",
        clip_target=f"{_CLIPS}:semantic_clip",
        scan=f"{_SCANS}:scan_label_image",
        evaluator="evaluation.semantic:SemanticEvaluator",
        video_evaluator="evaluation.vspw:VideoSemanticEvaluator",
    ),
    "panoptic": Task(
        label_key="pan_seg_file_name",
        present_keys=("segments_info", "sem_seg_file_name"),
        class_list="stuff_classes",
        switch="PANOPTIC_ON",
        target=f"{_TARGETS}:panoptic_target",
        scan=f"{_SCANS}:scan_segments",
        evaluator="evaluation.panoptic:PanopticEvaluator",
    ),
    "instance": Task(
        label_key="annotations",
        present_keys=("annotations",),
        class_list="thing_classes",
        switch="INSTANCE_ON",
        target=f"{_TARGETS}:instance_target",
        clip_target=f"{_CLIPS}:instance_clip",
        scan=f"{_SCANS}:scan_annotations",
        evaluator="evaluation.instance:InstanceEvaluator",
        video_evaluator="evaluation.ytvis:VideoInstanceEvaluator",
    ),
    "entity": Task(  # objects and stuff without their categories, of one class
        label_key="pan_seg_file_name",
        present_keys=("segments_info",),
        class_list="stuff_classes",
        switch="ENTITY_ON",
        target=f"{_TARGETS}:entity_target",
        scan=f"{_SCANS}:scan_segments",
        evaluator="evaluation.entity:EntityEvaluator",
    ),
    "parsing": Task(
        label_key="person_labels",
        present_keys=("person_labels", "sem_seg_file_name"),
        class_list="stuff_classes",  # the parts, and a whole person
        switch="PARSING_ON",
        target=f"{_TARGETS}:parsing_target",
        scan=f"{_SCANS}:scan_persons",
        evaluator="evaluation.parsing:ParsingEvaluator",
    ),
}
LABEL_KEYS = {task.label_key for task in TASKS.values()}

# evaluator_type of a data set's metadata -> the tasks that its labels serve
IMAGE_TYPES = {
    "sem_seg": ("semantic",),
    "cityscapes_sem_seg": ("semantic",),
    "ade20k_full_sem_seg": ("semantic",),
    "ade20k_panoptic_seg": ("semantic", "panoptic", "instance"),
    "coco_panoptic_seg": ("semantic", "panoptic", "instance"),
    "cityscapes_panoptic_seg": ("semantic", "panoptic", "instance"),
    "mapillary_vistas_panoptic_seg": ("semantic", "panoptic", "instance"),
    "coco": ("instance",),
    "entity_seg": ("entity",),
    "human_parsing": ("parsing", "semantic"),
}
VIDEO_TYPES = {"vspw_sem_seg": ("semantic",), "vss": ("semantic",), "ytvis": ("instance",)}
# task -> key of a video's record: the labels, one entry per frame
VIDEO_LABEL_KEYS = {"semantic": "sem_seg_file_names", "instance": "annotations"}

OWN_LABELS = {
    "semantic": Labels("sem_seg", f"{_PAIRS}:pair_label_images", are_images=True),
    "instances": Labels("coco", "data.own.shapes:pair_instances", only_things=True),
    "drawn": Labels("sem_seg", "data.own.shapes:pair_drawn"),
    "panoptic": Labels("coco_panoptic_seg", f"{_PAIRS}:pair_segments"),
    "video_semantic": Labels("vspw_sem_seg", f"{_PAIRS}:pair_label_videos", are_images=True),
    "video_instances": Labels("ytvis", f"{_PAIRS}:pair_object_videos", only_things=True),
}


def find(name: Named) -> Any:
    """The function or class that a row names."""
    if callable(name):  # of a task outside this package
        return name
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def wanted_tasks(cfg) -> list[str]:
    """The tasks that MODEL.MASK_FORMER.TEST switches on; without that section, semantic."""
    if "MASK_FORMER" not in cfg.MODEL:
        return ["semantic"]
    switches = cfg.MODEL.MASK_FORMER.TEST
    return [name for name, task in TASKS.items() if switches[task.switch]]


def class_list(cfg) -> str:
    """The key of the metadata with the model's classes; stuff_classes are all, things included."""
    lists = {TASKS[name].class_list for name in wanted_tasks(cfg)}
    return lists.pop() if len(lists) == 1 else "stuff_classes"
