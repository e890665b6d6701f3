"""Mappers of images: record of a data set -> sample, the input of a model."""

import logging
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import Tensor

from ...tasks import LABEL_KEYS, TASKS, find
from ..formats.image_files import UnreadableError, read_rgb
from ..formats.label_images import present_values, read_label_map
from ..formats.person_labels import PersonLabels
from .augmentations import PAD_VALUE, in_order, pad
from .packed_masks import BitPackedMasks, IdMapMasks
from .targets import Augmented, check_same_size, objects

logger = logging.getLogger(__name__)

_FORMATS = ("RGB", "BGR")


class TestMapper:
    """The resized image of a record; other keys of the record are kept, for evaluators.

    With `present_of`, a task, the sample has `present_classes`, the oracle's ranking.
    """

    __test__ = False  # pytest must not collect it

    def __init__(
        self,
        augmentations: list[T.Augmentation],
        image_format: str,
        metadata: Any,
        present_of: str | None = None,
    ) -> None:
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = _check_format(image_format)
        self.metadata = metadata
        self.present_of = present_of

    def __call__(self, record: dict) -> dict:
        sample = {key: value for key, value in record.items() if key != "annotations"}
        aug_input = T.AugInput(read_image(sample))
        self.augmentations(aug_input)
        sample["image"] = to_tensor(aug_input.image, self.image_format)
        if self.present_of:
            classes = present_classes(record, self.present_of, self.metadata)
            if classes is not None:
                sample["present_classes"] = torch.as_tensor(classes, dtype=torch.int64)
        return sample


class TrainMapper:
    """Image, label map (with `reads_labels`) and instances of a record, with the same transforms.

    Args:
        task: semantic, panoptic, instance, entity or parsing: what the instances are.
        size_divisibility: images are padded to a multiple of it; -1: no padding.
        skip_corrupt: warn about a file that cannot be read, and use another image.
        keep_empty: keep objects outside the crop, with an empty mask.
    """

    def __init__(
        self,
        task: str,
        augmentations: list[T.Augmentation],
        image_format: str,
        metadata: Any,
        *,
        reads_labels: bool = False,
        size_divisibility: int = -1,
        skip_corrupt: bool = False,
        keep_empty: bool = False,
    ) -> None:
        self.target = find(TASKS[task].target)
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = _check_format(image_format)
        self.metadata = metadata
        self.reads_labels = reads_labels
        self.size_divisibility = size_divisibility
        self.skip_corrupt = skip_corrupt
        self.keep_empty = keep_empty
        self.left_out = set()  # messages already logged
        self.ignore_label = metadata.get("ignore_label", 255)
        largest = max(self.ignore_label, len(metadata.get("stuff_classes", ())) - 1)
        types = (torch.uint8, torch.int16, torch.int32)
        self.label_type = next(t for t in types if largest <= torch.iinfo(t).max)
        pairs = metadata.get("flip_pairs", ())
        in_pairs = [name for pair in pairs for name in pair]
        if len(set(in_pairs)) < len(in_pairs):
            raise ValueError(
                f"flip_pairs of {metadata.get('name', 'the data set')} have a class twice "
                f"({[tuple(pair) for pair in pairs]}), so its mirrored class is not clear; give "
                "each class one partner"
            )
        self.mirrored = {a: b for pair in pairs for a, b in (pair, pair[::-1])}

    def __call__(self, record: dict) -> dict | None:
        try:
            return self.map(record)
        except (UnreadableError, FileNotFoundError) as error:
            if not self.skip_corrupt:
                raise
            if str(error) not in self.left_out:
                self.left_out.add(str(error))
                logger.warning("skipped, because INPUT.CORRUPT is skip: %s", error)
            return None  # the dataloader uses another image

    def map(self, record: dict) -> dict:
        """The sample of a record; errors about unreadable files are not caught."""
        sample = {key: value for key, value in record.items() if key not in LABEL_KEYS}
        sample["image"], augmented = self.augment(sample, record)
        classes, masks = self.target(augmented)
        if augmented.labels is not None:
            sample["sem_seg"] = self._mirrored_labels(augmented)
        instances = self.instances(augmented, classes, masks)
        sample["instances"] = instances if self.keep_empty else instances[masks.nonempty()]
        return sample

    @staticmethod
    def read(sample: dict) -> np.ndarray:
        """The RGB image of a record (H, W, 3)."""
        return read_image(sample)

    def augment(
        self, sample: dict, record: dict, transforms: T.TransformList | None = None
    ) -> tuple[Tensor, Augmented]:
        """The augmented image (3, H, W), and the input of the target function.

        transforms: those of another image; None: draw new ones.
        """
        image = self.read(sample)
        native_size = image.shape[:2]
        aug_input = T.AugInput(image, sem_seg=self._read_labels(record, native_size))
        if transforms is None:
            transforms = self.augmentations(aug_input)
        else:
            aug_input.transform(transforms)
        size = aug_input.image.shape[:2]
        padded_size = _round_up(size, self.size_divisibility)
        labels = aug_input.sem_seg
        if labels is not None:
            labels = in_order(pad(labels, padded_size, self.ignore_label))
            labels = torch.from_numpy(labels).to(self.label_type)
        augmented = Augmented(
            record, labels, self.ignore_label, transforms, native_size, size, padded_size
        )
        return to_tensor(aug_input.image, self.image_format, padded_size), augmented

    def instances(
        self, augmented: Augmented, classes: list[int], masks: IdMapMasks | BitPackedMasks
    ) -> Instances:
        """Classes and masks as Instances; in a mirrored image, flip_pairs swap classes."""
        if self.mirrored and _is_mirrored(augmented.transforms):
            classes = [self.mirrored.get(name, name) for name in classes]
        instances = Instances(augmented.padded_size)
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        instances.gt_masks = masks
        return instances

    def _read_labels(self, record, size):
        """The label map as int32: for this type, transforms take upstream's nearest pixel."""
        if not self.reads_labels or "sem_seg_file_name" not in record:
            return None
        path = record["sem_seg_file_name"]
        labels = read_label_map(path, self.metadata, size)
        is_file = isinstance(path, str)
        check_same_size(record["file_name"], size, path, labels.shape, can_resize=is_file)
        return labels.astype(np.int32)

    def _mirrored_labels(self, augmented: Augmented) -> Tensor:
        labels = augmented.labels
        if not self.mirrored or not _is_mirrored(augmented.transforms):
            return labels
        swapped = labels.clone()
        for a, b in self.mirrored.items():
            swapped[labels == a] = b
        return swapped


def _check_format(image_format: str) -> str:
    if image_format not in _FORMATS:
        raise ValueError(f"INPUT.FORMAT must be RGB or BGR; got {image_format!r}")
    return image_format


def read_image(record: dict) -> np.ndarray:
    """The upright RGB image (H, W, 3) of a record; adds height and width to the record."""
    if "file_name" not in record:
        raise ValueError(
            "a record has no file_name; for videos, which have file_names, set "
            "INPUT.DATASET_MAPPER_NAME to video_semantic or video_instance"
        )
    image = read_rgb(record["file_name"])
    utils.check_image_size(record, image)
    return image


def to_tensor(
    image: np.ndarray, image_format: str, size: tuple[int, int] | None = None
) -> Tensor:
    """RGB image (h, w, 3) -> tensor (3, H, W) in RGB or BGR, padded to `size` if given."""
    image = in_order(image if size is None else pad(image, size, PAD_VALUE))
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes if image_format == "RGB" else planes[::-1]))
    return torch.from_numpy(planes)


def _round_up(size: tuple[int, int], divisibility: int) -> tuple[int, int]:
    """(height, width) rounded up to multiples of `divisibility`, if that is above 0."""
    if divisibility <= 0:
        return tuple(size)
    return tuple(-(-side // divisibility) * divisibility for side in size)


def _is_mirrored(transforms: T.TransformList) -> bool:
    flips = T.HFlipTransform, T.VFlipTransform
    return sum(isinstance(transform, flips) for transform in transforms.transforms) % 2 == 1


def present_classes(record: dict, task: str, metadata: Any) -> list[int] | None:
    """Ids of the classes in a record's labels at their native size; None without labels."""
    source = next((key for key in TASKS[task].present_keys if key in record), None)
    if source is None:
        return None
    if isinstance(record[source], PersonLabels):
        return record[source].classes()
    if source != "sem_seg_file_name":
        return sorted({entry["category_id"] for entry in objects(record[source])})
    classes = present_values(read_label_map(record[source], metadata))
    return classes[classes != metadata.get("ignore_label", 255)].tolist()
