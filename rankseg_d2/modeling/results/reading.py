"""Reading of results: label maps and masks, in whatever form a result has them."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...data.formats.rle import encode_columns


def label_map(result: dict) -> np.ndarray:
    """The predicted class of each pixel of an image: (H, W); scores stay on their device.

    On CPUs `max` is more than twice as fast as `argmax`, which gives the same.
    """
    if "sem_seg_labels" in result:
        labels = result["sem_seg_labels"]
    elif "sem_seg" in result:
        labels = result["sem_seg"].max(0).indices
    elif "sem_seg_scores" in result:
        labels = result["sem_seg_classes"][result["sem_seg_scores"].max(0).indices]
    else:
        raise ValueError(
            "The model's output has none of sem_seg_labels, sem_seg and sem_seg_scores, but only "
            f"{', '.join(result) or 'nothing'}. Set MODEL.MASK_FORMER.TEST.SEMANTIC_ON True, or "
            "leave out the semantic evaluator."
        )
    return labels.cpu().numpy()


def label_maps(result: dict) -> Sequence[np.ndarray]:
    """The T label maps (H, W) of a video or a clip."""
    if "sem_seg_frames" in result:
        return result["sem_seg_frames"]
    labels = result["sem_seg_labels"].cpu().numpy()  # (T, H, W)
    return list(labels.astype(np.uint8 if labels.max() < 2**8 else np.uint16))


def rle_masks(result: dict) -> list[list[dict | None]]:
    """The T masks of each instance of a video or a clip, as RLEs; None where it has no pixel."""
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
