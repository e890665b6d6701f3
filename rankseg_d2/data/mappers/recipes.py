"""The lists of augmentations of upstream's recipes, from a config."""

import sys

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ...errors import unknown_name
from .augmentations import (
    ColorAugSSD,
    LargeScaleJitter,
    RandomRotation,
    RandomSaturation,
    ResizeShortestEdge,
    ResizeShortestEdgeAndCrop,
    Stretch,
    StretchAndCrop,
)

_FLIPS = ("none", "horizontal", "vertical", "flip_by_clip")  # the last one is horizontal
_DETR_SHORT_EDGES = [400, 500, 600]  # before the crop


def shortest_edge(cfg: CfgNode, *, constrain_area: bool) -> list[T.Augmentation]:
    """Resize, crop, SSD's colours, flip: MaskFormer's and Mask2Former's recipe.

    INPUT.KEEP_RATIO and INPUT.ROTATION make it that of human parsing.
    """
    keys = cfg.INPUT
    crop = {}
    if keys.CROP.ENABLED:
        crop = {"crop_type": keys.CROP.TYPE, "crop_size": tuple(keys.CROP.SIZE)}
        if constrain_area:
            crop["max_area"] = keys.CROP.SINGLE_CATEGORY_MAX_AREA
            crop["ignore_label"] = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    colours = [ColorAugSSD()] if keys.COLOR_AUG_SSD else []
    return [_resize(keys, **crop), *_rotation(cfg), *colours, *_flips(keys)]


def large_scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    """Flip, resize by a scale from a wide range, crop or pad to a square: Mask2Former's on COCO."""
    keys = cfg.INPUT
    ignore = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    scales = keys.MIN_SCALE, keys.MAX_SCALE
    return [*_flips(keys), LargeScaleJitter(*scales, keys.IMAGE_SIZE, ignore)]


def detr(cfg: CfgNode) -> list[T.Augmentation]:
    """Flip and resize; half of the time after a resize and a crop: MaskFormer's on COCO."""
    keys = cfg.INPUT
    flips, resize = _flips(keys), _resize(keys)
    if not keys.CROP.ENABLED:
        return [*flips, resize]
    crop = ResizeShortestEdgeAndCrop(
        _DETR_SHORT_EDGES, sys.maxsize, "choice", keys.CROP.TYPE, tuple(keys.CROP.SIZE)
    )
    return [OneOf([*flips, resize], [*flips, crop, resize])]


def clip(cfg: CfgNode) -> list[T.Augmentation]:
    """Crop, resize, flip, change colours, rotate: Mask2Former's on videos."""
    keys = cfg.INPUT
    crop = [T.RandomCrop(keys.CROP.TYPE, keys.CROP.SIZE)] if keys.CROP.ENABLED else []
    colours = [ColorAugSSD()] if keys.COLOR_AUG_SSD else []
    known = {
        "brightness": T.RandomBrightness(0.9, 1.1),
        "contrast": T.RandomContrast(0.9, 1.1),
        "saturation": RandomSaturation(0.9, 1.1),
        "rotation": RandomRotation(15, 0.1, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE),
    }
    for name in keys.AUGMENTATIONS:
        if name not in known:
            raise unknown_name("INPUT.AUGMENTATIONS", str(name), known)
    more = [augmentation for name, augmentation in known.items() if name in keys.AUGMENTATIONS]
    return [*crop, _resize(keys), *_flips(keys), *colours, *more]


def at_test_time(cfg: CfgNode) -> list[T.Augmentation]:
    """Resize the shortest edge to INPUT.MIN_SIZE_TEST; 0 keeps the image's size.

    Without INPUT.KEEP_RATIO, the image becomes a square of that size.
    """
    keys = cfg.INPUT
    if not keys.KEEP_RATIO and keys.MIN_SIZE_TEST:
        return [Stretch(keys.MIN_SIZE_TEST)]
    return [ResizeShortestEdge(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST, "choice")]


class OneOf(T.Augmentation):
    """One of two lists of augmentations, each with probability 1/2."""

    def __init__(self, first: list[T.Augmentation], second: list[T.Augmentation]) -> None:
        super().__init__()
        self.lists = T.AugmentationList(first), T.AugmentationList(second)

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        first, second = self.lists
        return (first if np.random.rand() > 0.5 else second)(aug_input)

    def __repr__(self) -> str:
        return f"OneOf{self.lists}"

    __str__ = __repr__  # detectron2's Augmentation has one that knows no lists


def _resize(keys, **crop) -> ResizeShortestEdgeAndCrop:
    if not keys.KEEP_RATIO:
        return StretchAndCrop(keys.IMAGE_SIZE, keys.MIN_SCALE, keys.MAX_SCALE, **crop)
    style = keys.MIN_SIZE_TRAIN_SAMPLING.removesuffix("_by_clip")  # a clip always has one size
    return ResizeShortestEdgeAndCrop(keys.MIN_SIZE_TRAIN, keys.MAX_SIZE_TRAIN, style, **crop)


def _rotation(cfg: CfgNode) -> list[T.Augmentation]:
    keys = cfg.INPUT.ROTATION
    if not keys.DEGREES:
        return []
    rotation = RandomRotation(keys.DEGREES, 0.0, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
    return [T.RandomApply(rotation, keys.PROBABILITY)]


def _flips(keys) -> list[T.Augmentation]:
    flip = keys.RANDOM_FLIP
    if flip not in _FLIPS:
        raise ValueError(f"INPUT.RANDOM_FLIP must be one of {', '.join(_FLIPS)}; got {flip!r}")
    if flip == "none":
        return []
    return [T.RandomFlip(horizontal=flip != "vertical", vertical=flip == "vertical")]
