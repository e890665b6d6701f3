"""The default mapper: a record of a data set -> what a model takes."""

import copy
import logging

import numpy as np
import torch

from ..config import configurable
from . import detection_utils as utils
from . import transforms as T


class DatasetMapper:
    """Read the image, augment it together with its annotations, and make tensors of all.

    A record becomes the same dict with "image" (C, H, W), "sem_seg" (H, W) where it has one and,
    for training and where it has annotations, "instances".
    """

    @configurable
    def __init__(
        self,
        is_train,
        *,
        augmentations,
        image_format,
        use_instance_mask=False,
        instance_mask_format="polygon",
        recompute_boxes=False,
    ):
        """
        augmentations: Augmentations or Transforms, applied in this order.
        image_format: see `detection_utils.read_image`.
        use_instance_mask: whether "instances" has gt_masks, in `instance_mask_format`.
        recompute_boxes: boxes from the (cropped) masks instead of cropped boxes.
        """
        if recompute_boxes and not use_instance_mask:
            raise ValueError("recompute_boxes=True needs masks: set use_instance_mask=True too")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes
        logging.getLogger(__name__).info("augmentations, is_train=%s: %s", is_train, augmentations)

    @classmethod
    def from_config(cls, cfg, is_train=True):
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
            raise ValueError(
                "the embedded engine maps boxes, masks and semantic labels only: set "
                "MODEL.KEYPOINT_ON and MODEL.LOAD_PROPOSALS to False, or use the real detectron2"
            )
        augs = utils.build_augmentation(cfg, is_train)
        crops = cfg.INPUT.CROP.ENABLED and is_train
        if crops:
            augs.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augs,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
        }

    def __call__(self, dataset_dict):
        dataset_dict = copy.deepcopy(dataset_dict)  # it will be changed below
        image = utils.read_image(dataset_dict["file_name"], self.image_format)
        utils.check_image_size(dataset_dict, image)
        aug_input = T.AugInput(image)
        if "sem_seg_file_name" in dataset_dict:
            sem_seg = utils.read_image(dataset_dict.pop("sem_seg_file_name"), "L")
            aug_input.sem_seg = sem_seg.squeeze(2)
        transforms = self.augmentations(aug_input)

        image = np.atleast_3d(aug_input.image).transpose(2, 0, 1)  # (H, W[, C]) -> (C, H, W)
        dataset_dict["image"] = torch.from_numpy(np.array(image, order="C"))
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype("int64"))
        annos = dataset_dict.pop("annotations", None)
        if self.is_train and annos is not None:
            dataset_dict["instances"] = self._instances(annos, transforms, image.shape[1:])
        return dataset_dict

    def _instances(self, annos, transforms, image_size):
        """Instances of the annotations, without crowds and without what became empty."""
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        annos = [{k: a[k] for k in a.keys() - unused} for a in annos if not a.get("iscrowd", 0)]
        for anno in annos:
            utils.transform_instance_annotations(anno, transforms, image_size)
        instances = utils.annotations_to_instances(annos, image_size, self.instance_mask_format)
        if self.recompute_boxes and annos:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)
