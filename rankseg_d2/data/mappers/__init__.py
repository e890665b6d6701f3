"""Dataset mappers, by upstream's names: INPUT.DATASET_MAPPER_NAME."""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
from detectron2.data import MetadataCatalog

from ...errors import unknown_name
from . import recipes
from .images import TestMapper, TrainMapper
from .videos import ClipTestMapper, ClipTrainMapper, FrameSampler

logger = logging.getLogger(__name__)

__all__ = ["MAPPERS", "TestMapper", "TrainMapper", "build_mapper"]


def build_mapper(cfg, is_train: bool, dataset_name: str | None = None) -> Callable[[dict], dict]:
    """record -> sample, by INPUT.DATASET_MAPPER_NAME.

    Labels are read as the metadata of `dataset_name` says or, without that, of the data sets of
    DATASETS.TRAIN or DATASETS.TEST.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in MAPPERS:
        raise unknown_name("INPUT.DATASET_MAPPER_NAME", name, MAPPERS)
    names = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
    metadata = shared_metadata([dataset_name] if dataset_name else names)
    return MAPPERS[name](cfg, is_train, metadata)


def image_mapper(cfg, is_train, metadata, *, task, recipe, reads_labels=False,
                 kinds=(TestMapper, TrainMapper)):  # fmt: skip
    """The mapper of a task (semantic, panoptic, instance) with the augmentations of a recipe."""
    at_test, in_training = kinds
    if reads_labels:
        check_ignore_value(cfg, metadata)
    if not is_train:
        present_of = task if cfg.MODEL.RANKSEG.USE_GT else None
        return at_test(recipes.at_test_time(cfg), cfg.INPUT.FORMAT, metadata, present_of)
    corrupt = cfg.INPUT.CORRUPT
    if corrupt not in ("raise", "skip"):
        raise ValueError(f"INPUT.CORRUPT must be raise or skip, not {corrupt!r}")
    augmentations = recipe(cfg)
    logger.info("augmentations of the training images: %s", augmentations)
    return in_training(
        task,
        augmentations,
        cfg.INPUT.FORMAT,
        metadata,
        reads_labels=reads_labels,
        size_divisibility=cfg.INPUT.SIZE_DIVISIBILITY,
        skip_corrupt=corrupt == "skip",
        keep_empty=cfg.INPUT.KEEP_EMPTY,
    )


def clip_mapper(cfg, is_train, metadata, **options):
    """The same for videos."""
    kinds = ClipTestMapper, partial(ClipTrainMapper, FrameSampler.from_config(cfg))
    return image_mapper(cfg, is_train, metadata, kinds=kinds, **options)


# name -> factory(cfg, is_train, metadata of the data sets); add yours
MAPPERS: dict[str, Callable] = {
    "mask_former_semantic": partial(
        image_mapper,
        task="semantic",
        recipe=partial(recipes.shortest_edge, constrain_area=True),
        reads_labels=True,
    ),
    "mask_former_panoptic": partial(
        image_mapper,
        task="panoptic",
        recipe=partial(recipes.shortest_edge, constrain_area=True),
        reads_labels=True,
    ),
    "mask_former_instance": partial(
        image_mapper,
        task="instance",
        recipe=partial(recipes.shortest_edge, constrain_area=False),
    ),
    "coco_panoptic_lsj": partial(image_mapper, task="panoptic", recipe=recipes.large_scale_jitter),
    "coco_instance_lsj": partial(image_mapper, task="instance", recipe=recipes.large_scale_jitter),
    "detr_panoptic": partial(image_mapper, task="panoptic", recipe=recipes.detr),
    "video_semantic": partial(
        clip_mapper,
        task="semantic",
        recipe=partial(recipes.clip, has_label_maps=True),
        reads_labels=True,
    ),
    "video_instance": partial(
        clip_mapper, task="instance", recipe=partial(recipes.clip, has_label_maps=False)
    ),
}


def shared_metadata(names) -> dict:
    """The metadata of the data sets, which must agree on what labels mean; {} of none."""
    found = [MetadataCatalog.get(name) for name in names]
    for key in ("ignore_label", "label_table", "flip_pairs", "stuff_classes", "thing_classes"):
        values = [metadata.get(key) for metadata in found]
        for name, value in zip(names, values, strict=True):
            if not np.array_equal(value, values[0]):
                raise ValueError(
                    f"the data sets {names[0]} and {name} cannot be used together: their metadata "
                    f"differ in {key}; register one of them with the other's labels"
                )
    return found[0] if found else {}


def check_ignore_value(cfg, metadata) -> None:
    """Raise ValueError where the loss ignores another label than the data set marks as void."""
    asked, said = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE, metadata.get("ignore_label", 255)
    if asked != said:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {asked}, but the data set "
            f"{metadata.get('name', '')} marks void as {said} (ignore_label of its metadata); set "
            f"the key to {said}"
        )
