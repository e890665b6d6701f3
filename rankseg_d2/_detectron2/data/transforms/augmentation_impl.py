"""The augmentations of common recipes; each draws from np.random in detectron2's order."""

import sys

import numpy as np
from fvcore.transforms import transform as T
from PIL import Image

from .augmentation import Augmentation, _transform_to_aug
from .transform import ResizeTransform

__all__ = ["FixedSizeCrop", "RandomApply", "RandomBrightness", "RandomContrast", "RandomCrop"]
__all__ += ["RandomCrop_CategoryAreaConstraint", "RandomFlip", "RandomSaturation", "Resize"]
__all__ += ["ResizeScale", "ResizeShortestEdge"]

CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")


class RandomApply(Augmentation):
    """Apply an augmentation or transform with probability `prob`."""

    def __init__(self, tfm_or_aug, prob=0.5):
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must lie between 0 and 1, got {prob}")
        self._init(locals())
        self.aug = _transform_to_aug(tfm_or_aug)

    def __call__(self, aug_input):
        return self.aug(aug_input) if self._rand_range() < self.prob else T.NoOpTransform()


class RandomFlip(Augmentation):
    """Flip horizontally or vertically with probability `prob`."""

    def __init__(self, prob=0.5, *, horizontal=True, vertical=False):
        if bool(horizontal) == bool(vertical):
            raise ValueError("exactly one of horizontal and vertical must be true in a RandomFlip")
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        return T.HFlipTransform(w) if self.horizontal else T.VFlipTransform(h)


class Resize(Augmentation):
    """Resize to `shape`, (height, width) or one int for both."""

    def __init__(self, shape, interp=Image.BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image):
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter edge has a drawn length and the longer at most `max_size`.

    With sample_style "range" the length is drawn from [low, high], with "choice" from the list.
    A length of 0 leaves the image as it is.
    """

    def __init__(self, short_edge_length, max_size=sys.maxsize, sample_style="range",
                 interp=Image.BILINEAR):  # fmt: skip
        if sample_style not in ("range", "choice"):
            raise ValueError(f"sample_style must be 'range' or 'choice', got {sample_style!r}")
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if sample_style == "range" and len(short_edge_length) != 2:
            raise ValueError(
                f"short_edge_length={short_edge_length} is a list for sample_style='choice'; "
                "for 'range' it must be (low, high)"
            )
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        if self.sample_style == "range":
            size = np.random.randint(self.short_edge_length[0], self.short_edge_length[1] + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return T.NoOpTransform()
        return ResizeTransform(h, w, *self.get_output_shape(h, w, size, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh, oldw, short_edge_length, max_size):
        """(new height, new width) of an (oldh, oldw) image."""
        size = short_edge_length * 1.0
        scale = size / min(oldh, oldw)
        newh, neww = (size, scale * oldw) if oldh < oldw else (scale * oldh, size)
        if max(newh, neww) > max_size:
            scale = max_size * 1.0 / max(newh, neww)
            newh, neww = newh * scale, neww * scale
        return int(newh + 0.5), int(neww + 0.5)


class ResizeScale(Augmentation):
    """Large-scale jitter: fit into (target_height, target_width) times a drawn scale."""

    def __init__(self, min_scale, max_scale, target_height, target_width, interp=Image.BILINEAR):
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        scale = np.random.uniform(self.min_scale, self.max_scale)
        scale = min(self.target_height * scale / h, self.target_width * scale / w)
        newh, neww = np.round((h * scale, w * scale)).astype(int).tolist()
        return ResizeTransform(h, w, newh, neww, self.interp)


class FixedSizeCrop(Augmentation):
    """Crop at most `crop_size` (height, width) at random; pad right and bottom up to it.

    The same random number places the crop along both axes.
    """

    def __init__(self, crop_size, pad=True, pad_value=128.0, seg_pad_value=255):
        self._init(locals())

    def get_transform(self, image):
        (h, w), (crop_h, crop_w) = image.shape[:2], self.crop_size
        room = np.maximum(np.subtract((h, w), self.crop_size), 0)
        y0, x0 = np.round(room * np.random.uniform(0.0, 1.0)).astype(int).tolist()
        crop = T.CropTransform(x0, y0, crop_w, crop_h, w, h)
        if not self.pad:
            return T.TransformList([crop])
        h, w = min(h, crop_h), min(w, crop_w)
        values = (self.pad_value, self.seg_pad_value)
        return T.TransformList([crop, T.PadTransform(0, 0, crop_w - w, crop_h - h, w, h, *values)])


class RandomCrop(Augmentation):
    """Crop a rectangle at a random place.

    crop_size (height, width) means, by crop_type:
      "relative": these shares of the image; "relative_range": shares drawn from [crop_size, 1];
      "absolute": these pixels, at most the image;
      "absolute_range": height and width drawn from [crop_size[0], crop_size[1]] pixels.
    """

    def __init__(self, crop_type, crop_size):
        if crop_type not in CROP_TYPES:
            raise ValueError(f"crop_type must be one of {CROP_TYPES}, got {crop_type!r}")
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((h, w))
        if crop_h > h or crop_w > w:
            raise ValueError(f"{self} asks for {crop_h} x {crop_w} of an image of {h} x {w} pixels")
        y0 = np.random.randint(h - crop_h + 1)
        x0 = np.random.randint(w - crop_w + 1)
        return T.CropTransform(x0, y0, crop_w, crop_h)

    def get_crop_size(self, image_size):
        """(height, width) of the crop of an image of `image_size` (height, width)."""
        h, w = image_size
        if self.crop_type == "absolute":
            return min(self.crop_size[0], h), min(self.crop_size[1], w)
        if self.crop_type == "absolute_range":
            low, high = self.crop_size
            crop_h = np.random.randint(min(h, low), min(h, high) + 1)
            return crop_h, np.random.randint(min(w, low), min(w, high) + 1)
        shares = self.crop_size
        if self.crop_type == "relative_range":
            shares = np.asarray(shares, dtype=np.float32)
            shares = shares + np.random.rand(2) * (1 - shares)
        return int(h * shares[0] + 0.5), int(w * shares[1] + 0.5)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """RandomCrop, drawn up to ten times until no category fills more than the given share.

    Pixels of `ignored_category` do not count; the tenth crop is taken as it is.
    """

    def __init__(self, crop_type, crop_size, single_category_max_area=1.0, ignored_category=None):
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image, sem_seg):
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        if sem_seg is None:
            raise ValueError(f"{self} needs sem_seg in the AugInput, or an area of 1")
        for _ in range(10):
            crop = self.crop_aug.get_transform(image)
            labels, counts = np.unique(crop.apply_image(sem_seg), return_counts=True)
            counts = counts[labels != self.ignored_category]
            if len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area:
                break
        return crop


class _RandomBlend(Augmentation):
    """Blend with another image; an intensity of 1 changes nothing."""

    def __init__(self, intensity_min, intensity_max):
        self._init(locals())

    def get_transform(self, image):
        intensity = np.random.uniform(self.intensity_min, self.intensity_max)
        return T.BlendTransform(self._other(image), src_weight=1 - intensity, dst_weight=intensity)


class RandomContrast(_RandomBlend):
    """Blend with the mean of the image."""

    def _other(self, image):
        return image.mean()


class RandomBrightness(_RandomBlend):
    """Blend with black."""

    def _other(self, image):
        return 0


class RandomSaturation(_RandomBlend):
    """Blend an RGB image with its grey version."""

    def _other(self, image):
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{self} needs an image (H, W, 3), got {image.shape}")
        return image.dot([0.299, 0.587, 0.114])[:, :, None]
