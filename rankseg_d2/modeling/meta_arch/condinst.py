"""CondInst (Tian et al., ECCV 2020), as Open-World Entity Segmentation (Qi et al., 2021) has it."""

from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ..clips import Clips, image_targets
from ..condinst import CondInstHead
from ..condinst.bank import DYNAMIC, bank_inputs
from ..condinst.detections import detect_objects
from ..condinst.losses import (
    Positives,
    detector_losses,
    mask_loss,
    overlap_loss,
    positives_of,
)
from ..condinst.maps import aligned_upsample, cell_centers, fit
from ..condinst.targets import assign, size_ranges
from ..outputs import LocationPredictions
from ..results import Sizes
from ..results.boxes import mask_boxes
from ..results.entities import object_instances
from .base import Segmentation

_DOUBLING = 2  # masks are drawn at the size of the mask features, and enlarged so often


class ObjectTargets(NamedTuple):
    """The ground truth of a batch."""

    labels: list[Tensor]  # of each image (N,)
    masks: list[Tensor]  # (N, H, W) bool


class CondInst(Segmentation):
    """A detector without boxes in its masks: each location gives the kernels of its object's mask.

    With the dynamic bank, static layers replace dynamic ones in six more mask losses; and a loss
    makes the masks of an image compete for its pixels. Neither costs anything at inference.
    """

    sem_seg_head: CondInstHead

    switches = ("INSTANCE_ON", "ENTITY_ON")

    @configurable
    def __init__(
        self,
        *,
        sizes: list[float],
        radius: float,
        max_proposals: int,
        overlap_weight: float,
        detection: dict[str, Any],
        **options: Any,
    ):
        """
        Args:
            sizes: of objects, in pixels: the limits between the five levels.
            radius: of centre sampling, in strides.
            max_proposals: locations of a batch at which masks are learnt.
            detection: arguments of `detect_objects`.
        """
        super().__init__(**options)
        self.sizes = sizes
        self.radius = radius
        self.max_proposals = max_proposals
        self.overlap_weight = overlap_weight
        self.detection = detection

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        own, ranking = cfg.MODEL.CONDINST, cfg.MODEL.RANKSEG
        if ranking.FLAG or ranking.USE_GT:
            raise ValueError(
                "MODEL.META_ARCHITECTURE CondInst ranks no categories; set MODEL.RANKSEG.FLAG and "
                "USE_GT False, or take MaskFormer"
            )
        if list(own.SIZES) != sorted(own.SIZES):
            raise ValueError(f"MODEL.CONDINST.SIZES must ascend, but they are {list(own.SIZES)}")
        options = super().from_config(cfg)
        if not isinstance(options["sem_seg_head"], CondInstHead):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}, but {cls.__name__} "
                "needs CondInstHead"
            )
        results = options["result_options"]
        if results.semantic or results.panoptic:
            raise ValueError(
                "CondInst gives objects alone: set MODEL.MASK_FORMER.TEST.SEMANTIC_ON and "
                "PANOPTIC_ON False, and ENTITY_ON or INSTANCE_ON True"
            )
        return options | {
            "sizes": list(own.SIZES),
            "radius": own.CENTER_RADIUS,
            "max_proposals": own.MAX_PROPOSALS,
            "overlap_weight": own.OVERLAP_WEIGHT,
            "detection": {
                "score_threshold": own.SCORE_THRESHOLD,
                "candidates": own.CANDIDATES,
                "nms_threshold": own.NMS_THRESHOLD,
                "count": results.detections_per_image,
            },
        }

    @property
    def num_classes(self) -> int:
        return self.sem_seg_head.num_classes

    def network(self, frames: Tensor, num_frames: int = 1) -> LocationPredictions:
        return self.sem_seg_head(self.backbone(frames))

    def decide(self, outputs: LocationPredictions) -> LocationPredictions:
        return outputs

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> ObjectTargets:
        """Labels and masks of each image, at the padded size."""
        targets = [
            image_targets(sample, clips.padded_size, self.num_classes, self.device)
            for sample in batched_inputs
        ]
        return ObjectTargets(
            [target["labels"] for target in targets], [target["masks"][:, 0] for target in targets]
        )

    def losses(self, outputs: LocationPredictions, targets: ObjectTargets) -> dict[str, Tensor]:
        """`loss_cls`, `loss_box`, `loss_center`, `loss_mask`, and `loss_overlap`."""
        ranges = size_ranges(outputs.levels, self.sizes)
        where = outputs.locations, outputs.strides, ranges
        assignments = [assign(*where, mask_boxes(x), self.radius) for x in targets.masks]
        positives = positives_of(assignments, [len(labels) for labels in targets.labels])
        with torch.autocast(self.device.type, enabled=False):
            losses = detector_losses(outputs, torch.cat(targets.labels), assignments, positives)
        images, places, objects = self.drawn_from(positives)
        logits = self.draw(outputs, images, places, tuple(self.sem_seg_head.bank.paths))
        size = tuple(logits[DYNAMIC].shape[-2:])
        stride = outputs.feature_stride // _DOUBLING
        centers = slice(stride // 2, None, stride)
        masks = torch.cat([fit(x[:, centers, centers], size) for x in targets.masks])  # (N, h, w)
        with torch.autocast(self.device.type, enabled=False):
            losses["loss_mask"] = mask_loss(logits, masks[objects], self.sem_seg_head.bank.paths)
            if self.overlap_weight:
                overlap = overlap_loss(logits[DYNAMIC], images, objects, masks)
                losses["loss_overlap"] = self.overlap_weight * overlap
        return losses

    def drawn_from(self, positives: Positives) -> Positives:
        """At most `max_proposals` of the locations with an object, at random."""
        count = len(positives.images)
        if count <= self.max_proposals:
            return positives
        some = torch.randperm(count, device=positives.images.device)[: self.max_proposals]
        return Positives(*(part[some] for part in positives))

    def draw(
        self,
        outputs: LocationPredictions,
        images: Tensor,
        places: Tensor,
        paths: tuple[str, ...] = (DYNAMIC,),
    ) -> dict[str, Tensor]:
        """Mask logits (n, h, w) by path, of n locations; at half the stride of the features."""
        size, stride = tuple(outputs.features.shape[-2:]), outputs.feature_stride
        # A level's coordinates are relative to the size that it is for: 64 pixels, 128, ...
        scales = self.sizes[0] * 2.0 ** outputs.levels[places]
        inputs = bank_inputs(
            outputs.features[images],
            cell_centers(size, stride, self.device),
            outputs.locations[places],
            scales,
        )
        found = self.sem_seg_head.bank(inputs, outputs.kernels[images, places], paths)
        return {path: aligned_upsample(x[:, None], _DOUBLING)[:, 0] for path, x in found.items()}

    def result(self, outputs: LocationPredictions, i: int, sizes: Sizes) -> dict:
        excluded = self.result_options.excluded
        scores, categories, places = detect_objects(
            outputs, i, **self.detection, excluded=excluded
        )
        masks = self.draw(outputs, torch.full_like(places, i), places)[DYNAMIC]
        masks = masks[:, None]  # (n, 1, h, w)
        stride = outputs.feature_stride // _DOUBLING

        def enlarge(part: Tensor, sizes: Sizes) -> Tensor:
            return fit(aligned_upsample(part.float(), stride), sizes.padded)

        options = self.result_options
        found = object_instances(scores, categories, masks, sizes, options, enlarge)
        return {"instances": found}
