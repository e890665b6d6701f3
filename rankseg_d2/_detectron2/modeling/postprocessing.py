"""From what a network gives for its padded, resized input to results at the wanted size."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structures import BitMasks, Instances


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """The instances at another image size, without those whose box vanishes there.

    `pred_boxes` or `proposal_boxes` are scaled and clipped; `pred_masks` cover the whole image:
    BitMasks, or a tensor (N, H, W) of bool or of probabilities; they come back as bool tensor.
    """
    size = (int(output_height), int(output_width))
    name = next((n for n in ("pred_boxes", "proposal_boxes") if results.has(n)), None)
    if name is None:
        raise ValueError(
            "detector_postprocess takes instances with pred_boxes or proposal_boxes, but they "
            f"have only {sorted(results.get_fields())}"
        )
    scaled = Instances(size, **results.get_fields())
    boxes = results.get(name).clone()
    boxes.scale(size[1] / results.image_size[1], size[0] / results.image_size[0])
    boxes.clip(size)
    scaled.set(name, boxes)
    scaled = scaled[boxes.nonempty()]
    if scaled.has("pred_masks"):
        scaled.pred_masks = _resize_masks(scaled.pred_masks, size, mask_threshold)
    return scaled


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Scores (C, H, W) without their padding, resized: (C, output_height, output_width)."""
    height, width = img_size
    result = result[None, :, :height, :width]
    size = (output_height, output_width)
    return F.interpolate(result, size=size, mode="bilinear", align_corners=False)[0]


def _resize_masks(masks: BitMasks | Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    masks = masks.tensor if isinstance(masks, BitMasks) else masks
    if masks.dim() != 3:
        raise ValueError(
            "the embedded engine's detector_postprocess takes pred_masks (N, H, W) of the whole "
            f"image, not {tuple(masks.shape)}; masks cut to boxes need the real detectron2"
        )
    masks = masks[:, None].to(torch.promote_types(masks.dtype, torch.float16))
    masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    return masks[:, 0] >= threshold
