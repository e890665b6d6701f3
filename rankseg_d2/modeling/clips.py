"""Batches of images and clips: an image is a clip with one frame."""

from dataclasses import dataclass

import torch
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Clips:
    """B clips of T frames each, normalised and padded to one size at the right and the bottom."""

    tensor: Tensor  # (B·T, 3, H, W)
    sizes: list[tuple[int, int]]  # of each clip before padding
    num_frames: int

    @property
    def padded_size(self) -> tuple[int, int]:
        return tuple(self.tensor.shape[-2:])


def batch_clips(clips: list[list[Tensor]], mean: Tensor, std: Tensor, divisibility: int) -> Clips:
    """Frames (3, H, W) of each clip as one batch on the device of `mean`."""
    lengths = sorted({len(clip) for clip in clips})
    if len(lengths) > 1 or lengths == [0]:
        raise ValueError(
            f"the clips of one batch have {' and '.join(map(str, lengths))} frames; give clips of "
            "one length (INPUT.SAMPLING_FRAME_NUM), at least one frame each"
        )
    frames = [(frame.to(mean.device) - mean) / std for clip in clips for frame in clip]
    images = ImageList.from_tensors(frames, divisibility)
    num_frames = lengths[0]
    return Clips(images.tensor, images.image_sizes[::num_frames], num_frames)


def image_targets(sample: dict, padded_size: tuple[int, int], device) -> dict:
    """The labels (N,) and masks (N, 1, H, W) of an image's `instances`."""
    instances = sample["instances"].to(device)
    masks = pad(_mask_tensor(instances), padded_size)
    return {"labels": instances.gt_classes, "masks": masks[:, None], **_origin(sample)}


def clip_targets(sample: dict, padded_size: tuple[int, int], device) -> dict:
    """The labels (N,) and masks (N, T, H, W) of a clip's `instances`, one entry per frame.

    Row n of every frame is the same object; its `gt_ids` is -1 in frames where it is absent. Its
    class is that of the first frame where it is present; objects that are never are left out.
    """
    frames = [frame.to(device) for frame in sample["instances"]]
    masks = torch.stack([pad(_mask_tensor(frame), padded_size) for frame in frames], 1)
    present = torch.stack([frame.gt_ids != -1 for frame in frames], 1)  # (N, T)
    classes = torch.stack([frame.gt_classes for frame in frames], 1)  # (N, T)
    first = present.int().argmax(1, keepdim=True)
    labels = classes.gather(1, first).squeeze(1)
    ever = present.any(1)
    masks = masks & present[:, :, None, None]
    return {"labels": labels[ever], "masks": masks[ever], **_origin(sample)}


def pad(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) -> (N, H, W), filled with False at the right and the bottom."""
    height, width = masks.shape[-2:]
    return F.pad(masks, (0, size[1] - width, 0, size[0] - height))


def _mask_tensor(instances) -> Tensor:
    """The true masks (N, h, w) as bool, from a plain tensor or from BitMasks."""
    masks = instances.gt_masks
    return getattr(masks, "tensor", masks).bool()


def _origin(sample: dict) -> dict:
    """What error messages call this sample."""
    name = sample.get("file_name") or (sample.get("file_names") or [None])[0]
    return {} if name is None else {"file_name": name}
