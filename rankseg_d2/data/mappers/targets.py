"""The training targets of a sample: classes (N,) and masks (N, H, W), one function per task.

Each function takes an `Augmented` record and returns class ids and packed masks. Pixels of crowds
and ignored pixels are in no mask.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T

from ..formats.drawn_labels import DrawnLabels
from ..formats.label_images import (
    positions_of_ids,
    present_values,
    read_segment_ids,
    size_advice,
)
from ..formats.mask_checks import check_masks
from ..formats.person_labels import PersonLabels
from ..formats.polygons import draw_polygons
from .augmentations import pad
from .packed_masks import BitPackedMasks, IdMapMasks, pack, packed_masks
from .polygons import draw_shapes

Target = tuple[list[int], IdMapMasks | BitPackedMasks]  # class ids, masks


@dataclass(frozen=True)
class Augmented:
    """A record, the transforms of its image, and its transformed label map."""

    record: dict
    labels: torch.Tensor | None  # (H, W)
    ignore_label: int
    transforms: T.TransformList
    native_size: tuple[int, int]  # (height, width) of the image before the transforms
    size: tuple[int, int]  # after the transforms
    padded_size: tuple[int, int]


def semantic_target(sample: Augmented) -> Target:
    """One mask for each class that is present, sorted by id."""
    needed(sample.record, "sem_seg_file_name")
    classes = present_values(sample.labels.numpy())
    classes = classes[classes != sample.ignore_label].tolist()
    return classes, IdMapMasks(sample.labels, classes)


def panoptic_target(sample: Augmented) -> Target:
    """One mask for each segment that is not a crowd, in the order of `segments_info`."""
    record = sample.record
    path = needed(record, "pan_seg_file_name")
    ids = read_segment_ids(path)
    check_same_size(record["file_name"], sample.native_size, path, ids.shape, can_resize=False)
    segments = objects(needed(record, "segments_info"))
    numbers = positions_of_ids(ids, [segment["id"] for segment in segments])
    if segments and not numbers.any():
        raise ValueError(
            f"none of the segments_info of {record['file_name']} is in its panoptic image {path}; "
            "use the json and the folder of PNG files of the same data set"
        )
    masks = _transformed(numbers, len(segments), sample)
    return [segment["category_id"] for segment in segments], masks


def entity_target(sample: Augmented) -> Target:
    """The same, all of class 0."""
    classes, masks = panoptic_target(sample)
    return [0] * len(classes), masks


def instance_target(sample: Augmented) -> Target:
    """One mask for each annotation that is not a crowd, in the order of the record."""
    annotations = objects(needed(sample.record, "annotations"))
    if not all("segmentation" in annotation for annotation in annotations):
        raise ValueError(
            f"an annotation of {sample.record['file_name']} has no `segmentation`; add masks: "
            "mask classification cannot learn from boxes"
        )
    classes = [annotation["category_id"] for annotation in annotations]
    shapes = [annotation["segmentation"] for annotation in annotations]
    check_masks(annotations, sample.native_size, sample.record["file_name"])
    if not all(isinstance(shape, list) for shape in shapes):
        packed = draw_shapes(shapes, sample.native_size)
        return classes, _transformed(packed, len(shapes), sample)
    pieces = []
    for shape in shapes:
        polygons = [np.array(polygon, float).reshape(-1, 2) for polygon in shape]
        polygons = [sample.transforms.apply_coords(polygon) for polygon in polygons]
        pieces.append(draw_polygons(polygons, sample.size))
    return classes, packed_masks(pack(pieces, sample.padded_size), len(shapes))


def parsing_target(sample: Augmented) -> Target:
    """One mask for each part of all persons together, background included, then one per person."""
    persons: PersonLabels = needed(sample.record, "person_labels")
    classes, parts = semantic_target(sample)
    maps = persons.read()
    if not len(maps):
        return classes, parts
    image, size = sample.record["file_name"], maps.shape[1:]
    check_same_size(image, sample.native_size, str(persons), size, can_resize=False)
    whole = pack([(0, 0, one > 0) for one in maps], size)
    whole = _transformed(whole, len(maps), sample, like_labels=True)
    pieces = [(0, 0, mask.numpy()) for masks in (parts, whole) for mask in masks.tensor]
    packed = pack(pieces, sample.padded_size)
    return classes + [persons.num_parts] * len(maps), packed_masks(packed, len(pieces))


def _transformed(
    packed: np.ndarray, count: int, sample: Augmented, like_labels: bool = False
) -> IdMapMasks | BitPackedMasks:
    """The masks that `pack` made at the native size, transformed as the image was.

    like_labels: take the nearest pixels of label maps (torch's), so that both fit each other.
    """
    transforms = T.TransformList([_padding_with_zero(x) for x in sample.transforms.transforms])

    def move(plane):
        return pad(transforms.apply_segmentation(plane), sample.padded_size, 0)

    if like_labels:
        planes = packed if packed.ndim == 3 else packed[None]
        moved = np.stack([move(plane.astype(np.int32)) for plane in planes]).astype(packed.dtype)
        return packed_masks(moved if packed.ndim == 3 else moved[0], count)
    if packed.ndim == 3:
        return packed_masks(np.stack([move(plane) for plane in packed]), count)
    # As bytes, because the transforms take the nearest pixel as Pillow does for 8 bits only.
    pixels = packed[..., None].view(np.uint8)
    moved = np.stack([move(pixels[..., i]) for i in range(pixels.shape[-1])], -1)
    return packed_masks(moved.view(packed.dtype)[..., 0], count)


def _padding_with_zero(transform: T.Transform) -> T.Transform:
    """The same transform; what it adds is no pixel of a mask, instead of an ignored label."""
    if not getattr(transform, "label_pad", 0):
        return transform
    transform = copy.copy(transform)
    transform.label_pad = 0
    return transform


def objects(entries: list[dict]) -> list[dict]:
    """The segments or annotations that are not crowds."""
    return [entry for entry in entries if not entry.get("iscrowd", 0)]


def needed(record: dict, key: str) -> Any:
    """The value of a record's key; ValueError if it is absent."""
    if key not in record:
        raise ValueError(
            f"the record of {record['file_name']} has no {key}, which the task needs; set "
            "INPUT.DATASET_MAPPER_NAME to a mapper for the labels of this data set"
        )
    return record[key]


def check_same_size(
    image_path: str,
    image_size: Sequence[int],
    label_path: str | DrawnLabels,
    label_size: Sequence[int],
    can_resize: bool,
) -> None:
    """Raise ValueError if the sizes (height, width) of an image and its label image differ.

    can_resize: whether the key `resize_labels` of an own data set would help.
    """
    if tuple(image_size) != tuple(label_size):
        (h, w), (label_h, label_w) = image_size, label_size
        advice = size_advice(image_path, image_size, label_size, can_resize)
        raise ValueError(
            f"the image {image_path} is {w} x {h} (width x height), but its label image "
            f"{label_path} is {label_w} x {label_h}; {advice or 'both must have the same size'}"
        )
