"""What dataset mappers are made of: reading images, transforming and collecting annotations."""

import contextlib

import numpy as np
import torch
from PIL import Image, ImageOps

from ..structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from ..utils.file_io import PathManager
from . import transforms as T
from .catalog import MetadataCatalog


class SizeMismatchError(ValueError):
    """An image file has another size than its record says."""


def read_image(file_name, format=None):
    """The image in `file_name`, upright by its EXIF orientation, as `convert_PIL_to_numpy`."""
    with PathManager.open(file_name, "rb") as f:
        try:
            image = Image.open(f)
            image.load()  # now: a second time, Pillow may not raise the error of damaged pixels
            with contextlib.suppress(Exception):  # a broken EXIF block must not spoil a good image
                ImageOps.exif_transpose(image, in_place=True)
        except (OSError, ValueError) as error:
            raise OSError(f"{file_name} is not a whole image file: {error}") from error
        try:
            return convert_PIL_to_numpy(image, format)
        except ValueError as error:
            raise ValueError(f"INPUT.FORMAT {format!r} is not 'BGR' or a Pillow mode") from error


def convert_PIL_to_numpy(image, format):
    """Pillow's image as an array (H, W, C), or (H, W) of a one-channel file with format None.

    format: a mode of Pillow ("L" gives (H, W, 1)), "BGR", or None for the file's own mode.
    """
    if format is not None:
        image = image.convert("RGB" if format == "BGR" else format)
    array = np.asarray(image)
    if format == "BGR":
        return array[:, :, ::-1]
    return array[:, :, None] if format == "L" else array


def check_image_size(dataset_dict, image):
    """Compare the image with the record's width and height; add these where they are missing."""
    h, w = image.shape[:2]
    said = (dataset_dict.setdefault("width", w), dataset_dict.setdefault("height", h))
    if said != (w, h):
        raise SizeMismatchError(
            f"image {dataset_dict.get('file_name', '')} is {w} x {h} (width x height), but its "
            f"record says {said[0]} x {said[1]}; correct width and height in the annotations"
        )


def transform_instance_annotations(
    annotation, transforms, image_size, *, keypoint_hflip_indices=None
):
    """Apply `transforms` to box and segmentation of one annotation, in place; also returns it.

    The box becomes XYXY_ABS inside `image_size` (height, width), polygons stay polygons, RLE
    becomes a mask (H, W).
    """
    if "keypoints" in annotation:
        raise ValueError("the embedded engine has no keypoints: remove them from the annotations")
    if isinstance(transforms, (tuple, list)):
        transforms = T.TransformList(transforms)
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    box = transforms.apply_box(np.array([box]))[0].clip(min=0)
    annotation["bbox"] = np.minimum(box, [*image_size[::-1], *image_size[::-1]])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        polygons = [np.asarray(polygon).reshape(-1, 2) for polygon in segmentation]
        polygons = transforms.apply_polygons(polygons)
        annotation["segmentation"] = [polygon.reshape(-1) for polygon in polygons]
    elif "segmentation" in annotation:
        mask = transforms.apply_segmentation(_as_mask(segmentation, None))
        if mask.shape != tuple(image_size):
            raise ValueError(f"a mask has shape {mask.shape}, but its image {image_size}")
        annotation["segmentation"] = mask
    return annotation


def annotations_to_instances(annos, image_size, mask_format="polygon"):
    """Annotations of one image -> Instances with gt_boxes, gt_classes and, if there, gt_masks.

    mask_format: "polygon" or "bitmask".
    """
    target = Instances(image_size)
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    target.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))
    target.gt_classes = torch.tensor([int(a["category_id"]) for a in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segmentations = [a["segmentation"] for a in annos]
        if mask_format == "bitmask":
            masks = [np.ascontiguousarray(_as_mask(s, image_size)) for s in segmentations]
            target.gt_masks = BitMasks(torch.stack([torch.from_numpy(mask) for mask in masks]))
        elif mask_format == "polygon":
            if not all(isinstance(segmentation, list) for segmentation in segmentations):
                raise ValueError("not all masks are polygons: set INPUT.MASK_FORMAT to 'bitmask'")
            target.gt_masks = PolygonMasks(segmentations)
        else:
            raise ValueError(f"mask_format must be 'polygon' or 'bitmask', got {mask_format!r}")
    return target


def _as_mask(segmentation, image_size):
    """Polygons, RLE or a mask -> mask (H, W)."""
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        from pycocotools import mask as mask_util

        return mask_util.decode(segmentation)
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        return segmentation
    got = getattr(segmentation, "shape", type(segmentation).__name__)
    raise ValueError(f"a segmentation must be polygons, a COCO RLE or a mask (H, W), got {got}")


def filter_empty_instances(
    instances, by_box=True, by_mask=True, box_threshold=1e-5, return_mask=False
):
    """The instances whose box (wider than `box_threshold`) and mask are not empty.

    With `return_mask`: (instances, which were kept (N,)).
    """
    kept = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        kept &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        kept &= instances.gt_masks.nonempty()
    return (instances[kept], kept) if return_mask else instances[kept]


def check_metadata_consistency(key, dataset_names):
    """Raise a ValueError unless the metadata `key` is the same for all the data sets."""
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    for name, value in zip(dataset_names, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"data sets {dataset_names[0]!r} and {name!r} cannot be used together: their "
                f"metadata {key!r} is {values[0]!r} and {value!r}"
            )


def build_augmentation(cfg, is_train):
    """The default augmentations of cfg.INPUT: resize and, in training, flip."""
    keys = cfg.INPUT
    if not is_train:
        return [T.ResizeShortestEdge(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST, "choice")]
    style = keys.MIN_SIZE_TRAIN_SAMPLING
    augs = [T.ResizeShortestEdge(keys.MIN_SIZE_TRAIN, keys.MAX_SIZE_TRAIN, style)]
    flip = keys.RANDOM_FLIP
    if flip not in ("none", "horizontal", "vertical"):
        raise ValueError(f"INPUT.RANDOM_FLIP is {flip!r}, not 'none', 'horizontal' or 'vertical'")
    if flip != "none":
        augs.append(T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"))
    return augs
