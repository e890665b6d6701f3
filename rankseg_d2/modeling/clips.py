"""Batches of images and clips: an image is a clip with one frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F

from .results import Sizes

NO_CLASS = -1  # in label maps: the pixel has no class

_CALL = (
    'call it as model([{"image": image}]), with image = torch.from_numpy(pixels).permute(2, 0, 1) '
    "of pixels (height, width, channels) from 0 to 255, channels in the order of INPUT.FORMAT"
)


@dataclass(frozen=True)
class Clips:
    """B clips of T frames each, normalised and padded to one size at the right and the bottom."""

    tensor: Tensor  # (B·T, 3, H, W)
    sizes: list[tuple[int, int]]  # of each clip before padding
    num_frames: int
    present: Tensor | None = None  # (B, C) bool: ground-truth categories, used by the oracle only

    @property
    def padded_size(self) -> tuple[int, int]:
        return tuple(self.tensor.shape[-2:])

    def result_sizes(self, batched_inputs: list[dict]) -> list[Sizes]:
        """The sizes that each sample's results depend on."""
        return [
            Sizes(self.padded_size, size, output_size(sample, size))
            for sample, size in zip(batched_inputs, self.sizes, strict=True)
        ]


def batch_clips(clips: list[list[Tensor]], mean: Tensor, std: Tensor, divisibility: int) -> Clips:
    """Frames (3, H, W) of each clip as one batch on the device of `mean`."""
    lengths = sorted({len(clip) for clip in clips})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"the clips of one batch have {' and '.join(map(str, lengths)) or 'no'} frames; give "
            "clips of one length (INPUT.SAMPLING_FRAME_NUM), at least one frame each; whole videos "
            "of any lengths are predicted with TEST.VIDEO.WINDOW above 0"
        )
    for frame in (frame for clip in clips for frame in clip):
        _check_frame(frame, len(mean))
    for clip in clips:
        sizes = {tuple(frame.shape[-2:]) for frame in clip}
        if len(sizes) > 1:
            raise ValueError(
                f"the frames of a clip must have one size (height, width), but one clip has "
                f"{' and '.join(map(str, sorted(sizes)))}; resize them alike"
            )
    device = mean.device
    frames = [(to_device(frame, device) - mean) / std for clip in clips for frame in clip]
    sizes = [tuple(clip[0].shape[-2:]) for clip in clips]
    return Clips(pad_to_one_size(frames, divisibility), sizes, lengths[0])


def pad_to_one_size(maps: list[Tensor], divisibility: int = 0, value: float = 0) -> Tensor:
    """Maps (..., h, w) as a batch (N, ..., H, W), padded at the right and the bottom.

    As detectron2's ImageList does, which reads values that tensors without data do not have.
    """
    size = [max(sides) for sides in zip(*(one.shape[-2:] for one in maps), strict=True)]
    if divisibility > 1:
        size = [-(-side // divisibility) * divisibility for side in size]
    batch = maps[0].new_full((len(maps), *maps[0].shape[:-2], *size), value)
    for one, place in zip(maps, batch, strict=True):
        place[..., : one.shape[-2], : one.shape[-1]].copy_(one)
    return batch


def check_samples(batched_inputs: Any) -> None:
    """ValueError, for callers of a model, unless it gets a list of dicts with `image`."""
    if not isinstance(batched_inputs, list | tuple):
        raise ValueError(f"a model takes a list of dicts, not a {_kind(batched_inputs)}; {_CALL}")
    for sample in batched_inputs:
        if not isinstance(sample, Mapping) or "image" not in sample:
            found = list(sample) if isinstance(sample, Mapping) else f"a {_kind(sample)}"
            raise ValueError(f"a model takes dicts with `image`, not {found}; {_CALL}")
        if not hasattr(sample["image"], "__len__"):
            raise ValueError(f"`image` must be a tensor, not a {_kind(sample['image'])}; {_CALL}")


def check_values(sample: dict) -> None:
    """ValueError where the image of a sample has values from 0 to 1, as other libraries have it."""
    image = sample["image"]
    if isinstance(image, Tensor) and image.is_floating_point() and not image.is_cuda:
        low, high = image.aminmax() if image.numel() else (0, 0)
        if 0 <= low < high <= 1 and not torch.equal(image, image.round()):
            raise ValueError(f"the values of `image` are from 0 to 1; multiply by 255; {_CALL}")


def _check_frame(frame, channels):
    if not isinstance(frame, Tensor):
        raise ValueError(f"`image` must be a tensor, not a {_kind(frame)}; {_CALL}")
    if frame.dim() == 3 and frame.shape[-1] == channels != len(frame):
        raise ValueError(
            f"`image` has its channels last, {tuple(frame.shape)}; give image.permute(2, 0, 1); "
            f"{_CALL}"
        )
    if frame.dim() != 3 or len(frame) != channels or not frame.numel():
        raise ValueError(
            f"`image` must be ({channels}, height, width) and hold a pixel, for a clip a list of "
            f"such frames, but one is {tuple(frame.shape)}; {_CALL}"
        )


def _kind(value):
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def image_targets(
    sample: dict, padded_size: tuple[int, int], num_classes: int, device: torch.device
) -> dict:
    """The labels (N,) and masks (N, 1, H, W) of an image's `instances`."""
    instances = _instances(sample)
    masks = _mask_tensor(instances, device)[:, None]
    return _target(sample, instances.gt_classes, masks, padded_size, num_classes, device)


def clip_targets(
    sample: dict, padded_size: tuple[int, int], num_classes: int, device: torch.device
) -> dict:
    """The labels (N,) and masks (N, T, H, W) of a clip's `instances`, one entry per frame.

    Row n of every frame is the same object; its `gt_ids` is -1 in frames where it is absent. Its
    class is that of the first frame where it is present; objects that are in no frame are left out.
    """
    frames = _instances(sample)
    counts = [len(frame) for frame in frames]
    if len(counts) != len(sample["image"]) or len(set(counts)) != 1:
        raise ValueError(
            f"{_name(sample) or 'a clip'} has {len(sample['image'])} frames, and `instances` with "
            f"{counts} objects; every frame must list all objects of the clip, with `gt_ids` -1 "
            "where one is absent"
        )
    masks = torch.stack([_mask_tensor(frame, device) for frame in frames], 1)  # (N, T, h, w)
    present = torch.stack([frame.gt_ids != -1 for frame in frames], 1)  # (N, T)
    classes = torch.stack([frame.gt_classes for frame in frames], 1)  # (N, T)
    first = present.int().argmax(1, keepdim=True)
    labels = classes.gather(1, first).squeeze(1)
    ever = present.any(1)
    masks = masks & to_device(present[:, :, None, None], device)
    return _target(sample, labels[ever], masks[ever], padded_size, num_classes, device)


def label_map(labels: Tensor, masks: Tensor) -> Tensor:
    """The class of each pixel, NO_CLASS where no object is: (N,), (N, T, H, W) -> (T, H, W) int64.

    Where objects overlap, the smallest one is seen.
    """
    classes = labels.new_full(masks.shape[1:], NO_CLASS)
    largest_first = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    for i in largest_first.unbind():  # no copy to the host, as an index by number would be
        mask, label = (x.index_select(0, i[None])[0] for x in (masks, labels))
        classes = torch.where(mask, label, classes)
    return classes


def output_size(sample: dict, input_size: tuple[int, int]) -> tuple[int, int]:
    """The size of the results: the sample's `height` and `width`, else the input's size."""
    return sample.get("height", input_size[0]), sample.get("width", input_size[1])


def window_slices(length: int, size: int, stride: int) -> list[slice]:
    """Windows along a side of an image or along a video; none is longer than the side."""
    last = max(0, length - size)
    return [slice(at, min(at + size, length)) for at in [*range(0, last, stride), last]]


def to_device(values: Any, device: torch.device) -> Any:
    """A tensor, or masks with `to`, on the device; a GPU does not wait for its earlier work.

    CUDA has read memory that is not pinned when the call returns, so the copy is safe.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def pad(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) -> (N, H, W), filled with False at the right and the bottom."""
    height, width = masks.shape[-2:]
    return F.pad(masks, (0, size[1] - width, 0, size[0] - height))


def _instances(sample: dict) -> Any:
    if "instances" not in sample:
        raise ValueError(
            f"{_name(sample) or 'a sample'} has no `instances`, the ground truth of training. Use "
            "a dataset mapper that adds it (INPUT.DATASET_MAPPER_NAME), or model.eval() to predict"
        )
    return sample["instances"]


def _mask_tensor(instances: Instances, device: torch.device) -> Tensor:
    """The ground-truth masks (N, h, w) as bool.

    They are a plain tensor, BitMasks, or packed masks, which are unpacked on the device.
    """
    if not len(instances):
        return torch.zeros(0, *instances.image_size, dtype=torch.bool, device=device)
    masks = to_device(instances.gt_masks, device)
    return getattr(masks, "tensor", masks).bool()


def _target(
    sample: dict,
    labels: Tensor,
    masks: Tensor,
    padded_size: tuple[int, int],
    num_classes: int,
    device: torch.device,
) -> dict:
    """The target of a sample, on the device."""
    name = _name(sample)
    if not labels.is_cuda:  # on a GPU the check would wait for the device
        _check_labels(labels, num_classes, name)
    target = {"labels": to_device(labels, device), "masks": pad(masks, padded_size)}
    return target if name is None else target | {"file_name": name}


def _check_labels(labels: Tensor, num_classes: int, name: str | None) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"{name or 'a sample'} has an object of class {wrong[0]}, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, which allows 0 to "
            f"{num_classes - 1}; set it to the data set's number of classes"
        )


def _name(sample: dict) -> str | None:
    """The sample's file name for error messages, if it is known."""
    return sample.get("file_name") or next(iter(sample.get("file_names") or ()), None)
