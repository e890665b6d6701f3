"""The results of an image or a clip: semantic, panoptic and instance segmentation.

Results of an image, by name (maps of a clip have T before H, W):
    sem_seg_labels (H, W): the best category of each pixel; id C where no category is ranked.
    sem_seg (C, H, W): score of every category; with a ranking only if MODEL.RANKSEG.FULL_SCORES
        asks for it, where it is 0 for categories that are not ranked.
    sem_seg_scores (K, H, W), sem_seg_classes (K,): with a ranking, the scores of the ranked
        categories and their ids. Invalid places (dynamic κ) are left out.
    panoptic_seg: segment ids (H, W) int32, 0 for none, and a list of what the segments are.
    instances: detectron2's Instances, best first. A clip has pred_scores (N,), pred_labels (N,),
        pred_masks (N, T, H, W) and image_size instead.
"""

from dataclasses import dataclass

import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...ranking import Ranking
from .segments import (
    Classes,
    Shape,
    best_pairs,
    binary_masks,
    classify,
    hard_masks,
    mask_boxes,
    panoptic,
    semantic,
)


@dataclass(frozen=True)
class ResultOptions:
    """Which results are wanted, and how they are made."""

    semantic: bool = True
    panoptic: bool = False
    instance: bool = False
    object_mask_threshold: float = 0.0  # panoptic: queries need a higher score
    overlap_threshold: float = 0.0  # panoptic: segments need this share of their mask's area
    covered_only: bool = True  # panoptic: no pixels outside of a segment's own mask (Mask2Former)
    resize_first: bool = False  # semantic: masks to the output's size before the sigmoid, not after
    score_threshold: float = 0.0  # instances with a lower score are dropped
    detections_per_image: int = 100
    detections_per_video: int = 10
    full_scores: bool = False  # with a ranking: give `sem_seg` of all C categories too
    thing_ids: frozenset[int] | None = None  # None: not known, and panoptic results need it

    def __post_init__(self):
        counts = {
            "TEST.DETECTIONS_PER_IMAGE": self.detections_per_image,
            "MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": self.detections_per_video,
        }
        for key, count in counts.items():
            if count < 0:
                raise ValueError(f"{key} must be at least 0, but is {count}; 100 and 10 are usual")

    @classmethod
    def from_config(cls, cfg) -> "ResultOptions":
        mask_former = cfg.MODEL.MASK_FORMER
        test = mask_former.TEST
        before = test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE
        return cls(
            semantic=test.SEMANTIC_ON,
            panoptic=test.PANOPTIC_ON,
            instance=test.INSTANCE_ON,
            object_mask_threshold=test.OBJECT_MASK_THRESHOLD,
            overlap_threshold=test.OVERLAP_THRESHOLD,
            covered_only=mask_former.TRANSFORMER_IN_FEATURE == "multi_scale_pixel_decoder",
            # Panoptic and instance results take masks of the output's size, so all do.
            resize_first=before or test.PANOPTIC_ON or test.INSTANCE_ON,
            score_threshold=test.SCORE_THRESHOLD,
            detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
            detections_per_video=test.DETECTIONS_PER_VIDEO,
            full_scores=cfg.MODEL.RANKSEG.FULL_SCORES,
            thing_ids=find_thing_ids([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]),
        )

    def things(self) -> frozenset[int]:
        """Ids of the thing classes; ValueError if they are not known."""
        if self.thing_ids is None:
            raise ValueError(
                "MODEL.MASK_FORMER.TEST.PANOPTIC_ON needs to know which classes are things, but "
                "the metadata of no data set in DATASETS.TRAIN and DATASETS.TEST has "
                "thing_dataset_id_to_contiguous_id; set it ({} if all classes are stuff), or the "
                "key to False"
            )
        return self.thing_ids


def find_thing_ids(datasets: list[str]) -> frozenset[int] | None:
    """Ids of the thing classes, from the first data set whose metadata has them."""
    for name in datasets:
        ids = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id")
        if ids is not None:
            return frozenset(ids.values())
    return None


def image_result(
    logits: Tensor, masks: Tensor, ranking: Ranking | None, shape: Shape, options: ResultOptions
) -> dict:
    """Results of an image: logits (Q, K+1), masks (Q, 1, h, w) and its ranking (a batch of one)."""
    with torch.autocast(logits.device.type, enabled=False):
        classes = classify(logits, ranking)
        result = segment(classes, masks, shape, options, frames=0)
        if options.instance:
            result["instances"] = image_instances(classes, masks, shape, options)
    return result


def video_result(
    logits: Tensor, masks: Tensor, ranking: Ranking | None, shape: Shape, options: ResultOptions
) -> dict:
    """Results of a clip: logits (Q, K+1), masks (Q, T, h, w) and its ranking (a batch of one)."""
    with torch.autocast(logits.device.type, enabled=False):
        classes = classify(logits, ranking)
        result = segment(classes, masks, shape, options, frames=slice(None))
        if options.instance:
            result |= video_instances(classes, masks, shape, options)
    return result


def ranking_result(ranking: Ranking) -> dict:
    """What a ranking (a batch of one) says: `scores` (C,) and the kept `classes` (K,)."""
    classes = ranking.index[0]
    if ranking.valid is not None:
        classes = classes[ranking.valid[0]]
    return {"scores": ranking.scores[0], "classes": classes}


def segment(
    classes: Classes, masks: Tensor, shape: Shape, options: ResultOptions, frames: int | slice
) -> dict:
    """The semantic and panoptic results of one frame or of several."""
    result = {}
    if options.semantic:
        scores, labels = semantic(classes, masks, shape, options.resize_first)
        scores, labels = scores[:, frames], labels[frames]
        result["sem_seg_labels"] = labels
        if not classes.is_ranked:
            result["sem_seg"] = scores
        else:
            result |= {"sem_seg_scores": scores, "sem_seg_classes": classes.ids}
            if options.full_scores:
                full = scores.new_zeros(classes.num_classes, *scores.shape[1:])  # (C, ..., H, W)
                result["sem_seg"] = full.index_copy_(0, classes.ids, scores)
    if options.panoptic:
        ids, segments = panoptic(
            classes,
            masks,
            shape,
            options.things(),
            options.object_mask_threshold,
            options.overlap_threshold,
            options.covered_only,
        )
        result["panoptic_seg"] = ids[frames], segments
    return result


def image_instances(
    classes: Classes, masks: Tensor, shape: Shape, options: ResultOptions
) -> Instances:
    """The best pairs of query and category; a score is class times mean mask probability."""
    scores, queries, categories = detect(classes, options.detections_per_image, options)
    masks, certainty = hard_masks(masks, queries, shape)
    scores, order = (scores * certainty).sort(descending=True, stable=True)
    order = order[scores >= options.score_threshold]
    masks = masks[order, 0]  # (N, H, W)
    return Instances(
        shape.output,
        pred_masks=masks,
        pred_boxes=Boxes(mask_boxes(masks)),
        scores=scores[: len(order)],
        pred_classes=categories[order],
    )


def video_instances(classes: Classes, masks: Tensor, shape: Shape, options: ResultOptions) -> dict:
    """The best pairs of query and category in a clip; a score is the class probability."""
    scores, queries, categories = detect(classes, options.detections_per_video, options)
    queries, which = queries.unique(return_inverse=True)
    masks = binary_masks(masks[queries], shape)[which]  # (N, T, H, W)
    return {
        "image_size": shape.output,
        "pred_scores": scores,
        "pred_labels": categories,
        "pred_masks": masks,
    }


def detect(
    classes: Classes, count: int, options: ResultOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, queries and categories of at most `count` detections, best first: (N,) each.

    Beside panoptic results only those of things are left.
    """
    scores, queries, categories = best_pairs(classes, count)
    keep = scores >= options.score_threshold
    if options.panoptic:
        keep &= torch.isin(categories, categories.new_tensor(sorted(options.things())))
    return scores[keep], queries[keep], categories[keep]
