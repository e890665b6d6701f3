"""Entity segmentation: AP of all objects and stuff without their categories, AP^e."""

from functools import cached_property
from typing import Any

import torch
from detectron2.structures import Instances

from ..modeling.results.entities import without_overlap
from .ground_truth import InstanceGroundTruth, load_entities
from .instance import InstanceEvaluator


class EntityEvaluator(InstanceEvaluator):
    """{"entity": AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100}, in percent.

    COCO's mask AP (at most 100 an image) with all categories as one. Of predictions that overlap,
    the one with the higher score keeps the pixels; what is then empty, or one pixel wide or high,
    is dropped. The ground truth is the metadata's `json_file` or, without one, the segments of the
    records' panoptic PNG files, without crowds.
    """

    names = {"segm": "entity"}
    advice = "Set MODEL.MASK_FORMER.TEST.ENTITY_ON True."

    def __init__(
        self,
        dataset_name: str,
        output_folder: str | None = None,
        save_predictions: bool = False,
    ):
        super().__init__(dataset_name, output_folder, save_predictions)

    @cached_property
    def ground_truth(self) -> InstanceGroundTruth:
        """Read once, with all categories as one."""
        return load_entities(self.dataset_name)

    def compact(self, image_id: Any, instances: Instances) -> dict:
        """As of instances, without overlap and of class 0."""
        instances = instances[instances.scores.sort(descending=True, stable=True).indices]
        masks, kept = without_overlap(instances.pred_masks)
        found = Instances(instances.image_size, pred_masks=masks[kept])
        found.scores = instances.scores[kept]
        found.pred_classes = torch.zeros(len(found), dtype=torch.int64)
        return super().compact(image_id, found)

    def of_classes(self, table: list[dict]) -> dict[str, float]:
        return {}
