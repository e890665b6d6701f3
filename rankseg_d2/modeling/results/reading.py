"""Read a model's result: label maps, segments and masks, in whatever form the result has them."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...data.formats.painting import paint
from ...data.formats.rle import encode_columns
from .best import best_index

_LABELS = ("sem_seg_labels", "sem_seg", "sem_seg_scores")
_SEMANTIC_ON = "Set MODEL.MASK_FORMER.TEST.SEMANTIC_ON True."


def require(result: dict, *keys: str, advice: str) -> None:
    """ValueError, with the advice, if the result has none of the keys."""
    if not result.keys() & set(keys):
        found = ", ".join(result) or "nothing"
        raise ValueError(f"The model's output has no {' or '.join(keys)}, only {found}. {advice}")


def label_map(result: dict) -> np.ndarray:
    """The predicted class of each pixel of an image: (H, W); scores stay on their device."""
    require(result, *_LABELS, advice=_SEMANTIC_ON)
    if "sem_seg_labels" in result:
        labels = result["sem_seg_labels"]
    elif "sem_seg" in result:
        labels = best_index(result["sem_seg"])
    else:
        labels = result["sem_seg_classes"][best_index(result["sem_seg_scores"])]
    return labels.cpu().numpy()


def kept_categories(result: dict) -> np.ndarray | None:
    """The categories that a ranking has kept (K,), best first; None without a ranking."""
    return result["ranking"]["classes"].cpu().numpy() if "ranking" in result else None


def label_maps(result: dict) -> Sequence[np.ndarray]:
    """The T label maps (H, W) of a video or a clip."""
    require(result, "sem_seg_frames", "sem_seg_labels", advice=_SEMANTIC_ON)
    if "sem_seg_frames" in result:
        return result["sem_seg_frames"]
    labels = result["sem_seg_labels"].cpu().numpy()  # (T, H, W)
    return list(labels.astype(np.uint8 if labels.max() < 2**8 else np.uint16))


def panoptic_segments(result: dict, label_divisor: int = 1000) -> tuple[np.ndarray, list[dict]]:
    """Segment ids (H, W), 0 for none, and the segments, of detectron2's `panoptic_seg`.

    If its segments are None, a pixel is category id * label_divisor + instance, -1 for none.
    """
    require(result, "panoptic_seg", advice="Set MODEL.MASK_FORMER.TEST.PANOPTIC_ON True.")
    ids, segments = result["panoptic_seg"]
    ids = ids.int().cpu().numpy()
    if segments is not None:
        return ids, segments
    segments = [
        {"id": label + 1, "category_id": label // label_divisor}
        for label in np.unique(ids).tolist()
        if label != -1
    ]
    return ids + 1, segments


def predicted_labels(
    result: dict, num_classes: int, min_score: float = 0.5
) -> tuple[np.ndarray, np.ndarray | None]:
    """The category of each pixel (H, W), `num_classes` for none, and segment ids (H, W) or None.

    Label maps have no segment ids. Instances below `min_score` are left out; the one with the
    highest score lies on top.
    """
    if "panoptic_seg" in result:
        ids, segments = panoptic_segments(result)
        table = np.full(max(ids.max(), *(s["id"] for s in segments), 0) + 1, num_classes)
        for segment in segments:
            table[segment["id"]] = segment["category_id"]
        return table[ids], ids
    if "instances" not in result or result.keys() & set(_LABELS):
        return label_map(result), None
    instances = result["instances"].to("cpu")
    instances = instances[instances.scores > min_score]
    order = instances.scores.argsort()
    masks, classes = instances.pred_masks[order].numpy(), instances.pred_classes[order].numpy()
    ids = paint(masks, range(len(masks)), np.full(masks.shape[1:], -1))  # -1: the last of the table
    return np.append(classes, num_classes)[ids], ids


def rle_masks(result: dict) -> list[list[dict | None]]:
    """The T masks of each instance of a video or a clip, as RLEs; None where it has no pixel."""
    require(result, "pred_masks", advice="Set MODEL.MASK_FORMER.TEST.INSTANCE_ON True.")
    masks = result["pred_masks"]
    return [encode_masks(mask) for mask in masks] if isinstance(masks, Tensor) else masks


def encode_masks(masks: Tensor) -> list[dict | None]:
    """Compressed RLEs of masks (N, H, W) bool; None for one without a pixel."""
    rles: list[dict | None] = [None] * len(masks)
    some = masks.flatten(1).any(1).nonzero().flatten().tolist()
    columns = masks[some].mT.contiguous().cpu().numpy()  # (n, W, H)
    for i, rle in zip(some, encode_columns(columns), strict=True):
        rles[i] = rle
    return rles
