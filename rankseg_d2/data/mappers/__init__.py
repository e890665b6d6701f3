"""Dataset mappers, by upstream's names: INPUT.DATASET_MAPPER_NAME."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ...errors import unknown_name
from ...tasks import TASKS
from ..formats.label_images import READING_KEYS
from . import recipes
from .images import TestMapper, TrainMapper
from .videos import ClipTestMapper, ClipTrainMapper, FrameSampler

logger = logging.getLogger(__name__)

__all__ = ["MAPPERS", "MapperKind", "TestMapper", "TrainMapper", "build_mapper"]


class MapperKind(NamedTuple):
    """The properties of one mapper."""

    task: str  # of tasks.py
    recipe: Callable[..., list]  # cfg -> augmentations
    reads_labels: bool = False  # samples include the label map
    is_video: bool = False


_by_shortest_edge = partial(recipes.shortest_edge, constrain_area=True)
# name -> MapperKind, or a factory(cfg, is_train, metadata); add your own mappers here. The name of
# a task alone is a mapper too.
MAPPERS: dict[str, MapperKind | Callable] = {
    "mask_former_semantic": MapperKind("semantic", _by_shortest_edge, reads_labels=True),
    "mask_former_panoptic": MapperKind("panoptic", _by_shortest_edge, reads_labels=True),
    "mask_former_instance": MapperKind(
        "instance", partial(recipes.shortest_edge, constrain_area=False)
    ),
    "parsing": MapperKind("parsing", _by_shortest_edge, reads_labels=True),
    "coco_panoptic_lsj": MapperKind("panoptic", recipes.large_scale_jitter),
    "coco_instance_lsj": MapperKind("instance", recipes.large_scale_jitter),
    "coco_entity_lsj": MapperKind("entity", recipes.large_scale_jitter),
    "detr_panoptic": MapperKind("panoptic", recipes.detr),
    "video_semantic": MapperKind("semantic", recipes.clip, reads_labels=True, is_video=True),
    "video_instance": MapperKind("instance", recipes.clip, is_video=True),
}


def build_mapper(
    cfg: CfgNode, is_train: bool, dataset_name: str | None = None
) -> Callable[[dict], dict | None]:
    """The mapper record -> sample that INPUT.DATASET_MAPPER_NAME names.

    Labels are read by the metadata of `dataset_name` or, without it, of DATASETS.TRAIN or TEST.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    known = {task: MapperKind(task, _by_shortest_edge) for task in TASKS} | MAPPERS
    if name not in known:
        raise unknown_name("INPUT.DATASET_MAPPER_NAME", name, known)
    names = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
    metadata = _shared_metadata([dataset_name] if dataset_name else names)
    kind = known[name]
    if not isinstance(kind, MapperKind):
        return kind(cfg, is_train, metadata)
    if kind.reads_labels:
        _check_ignore_value(cfg, metadata)
    build = _build_train_mapper if is_train else _build_test_mapper
    return build(cfg, kind, metadata)


def _build_test_mapper(cfg, kind: MapperKind, metadata) -> TestMapper:
    present_of = kind.task if cfg.MODEL.RANKSEG.USE_GT else None
    mapper = ClipTestMapper if kind.is_video else TestMapper
    return mapper(recipes.at_test_time(cfg), cfg.INPUT.FORMAT, metadata, present_of)


def _build_train_mapper(cfg, kind: MapperKind, metadata) -> TrainMapper:
    corrupt = cfg.INPUT.CORRUPT
    if corrupt not in ("raise", "skip"):
        raise ValueError(f"INPUT.CORRUPT must be raise or skip; got {corrupt!r}")
    augmentations = kind.recipe(cfg)
    logger.info("augmentations of the training images: %s", augmentations)
    mapper = TrainMapper
    if kind.is_video:
        mapper = partial(ClipTrainMapper, FrameSampler.from_config(cfg))
    return mapper(
        kind.task,
        augmentations,
        cfg.INPUT.FORMAT,
        metadata,
        reads_labels=kind.reads_labels,
        size_divisibility=cfg.INPUT.SIZE_DIVISIBILITY,
        skip_corrupt=corrupt == "skip",
        keep_empty=cfg.INPUT.KEEP_EMPTY,
    )


def _shared_metadata(names) -> dict:
    """The metadata of the first data set; all must agree on the meaning of labels; {} of none."""
    found = [MetadataCatalog.get(name) for name in names]
    for key in (*READING_KEYS, "flip_pairs", "stuff_classes", "thing_classes"):
        values = [metadata.get(key) for metadata in found]
        for name, value in zip(names, values, strict=True):
            if not np.array_equal(value, values[0]):
                raise ValueError(
                    f"the data sets {names[0]} and {name} cannot be used together: their metadata "
                    f"differ in {key}; register both with the same {key}"
                )
    return found[0] if found else {}


def _check_ignore_value(cfg, metadata) -> None:
    """Raise ValueError if the ignored labels of the loss and of the data set differ."""
    of_loss, of_data = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE, metadata.get("ignore_label", 255)
    if of_loss != of_data:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {of_loss}, but the data set "
            f"{metadata.get('name', '')} uses {of_data} (ignore_label of its metadata); set the "
            f"key to {of_data}"
        )
