"""The augmentations of the mappers: bit-identical to upstream, computed only inside the crop.

Random numbers are drawn by the same calls in the same order as upstream.
"""

import random
from functools import partial

import cv2
import numpy as np
from detectron2.data import transforms as T
from PIL import Image

_MAX_TRIES = 10  # to find a crop with more than one category
PAD_VALUE = 128  # of images


class ResizeAndCrop(T.Transform):
    """Resize (h, w) to `new_size`, crop at `corner`, pad to `size`.

    Bit-identical to ResizeTransform, CropTransform and PadTransform in turn. All sizes are
    (height, width), `corner` is (y, x). Labels are padded with `label_pad`.
    """

    def __init__(self, h, w, new_size, corner, size, label_pad=0):
        super().__init__()
        self._set_attributes(locals())
        self.window = tuple(min(s, n - c) for s, n, c in zip(size, new_size, corner, strict=True))

    def apply_image(self, img):
        """uint8 (h, w[, 3]) -> (*size[, 3]), by Pillow's antialiased bilinear resize.

        OpenCV's is faster but not identical: 1 in 5 values of an enlarged image differs by 1.
        """
        (new_h, new_w), (y, x), (height, width) = self.new_size, self.corner, self.window
        image = Image.fromarray(in_order(img))
        if new_h >= self.h and width < new_w:
            # Pillow resizes along x first; after that, columns outside the crop can be dropped.
            image = image.resize((new_w, self.h), Image.BILINEAR).crop((x, 0, x + width, self.h))
            new_w, x = width, 0
        image = image.resize((new_w, new_h), Image.BILINEAR)
        if image.size != (width, height):
            image = image.crop((x, y, x + width, y + height))
        return pad(np.asarray(image), self.size, PAD_VALUE)

    def apply_segmentation(self, segmentation):
        """(h, w[, C]) -> (*size[, C]), with detectron2's nearest pixel.

        It depends on the type: Pillow's for uint8; else torch's, which is up to half a pixel off.
        """
        like_pillow = segmentation.dtype == np.uint8
        (new_h, new_w), (y, x), (height, width) = self.new_size, self.corner, self.window
        rows = nearest(self.h, new_h, like_pillow)[y : y + height]
        columns = nearest(self.w, new_w, like_pillow)[x : x + width]
        inside = segmentation[rows[0] : rows[-1] + 1].take(columns, axis=1)
        return pad(inside.take(rows - rows[0], axis=0), self.size, self.label_pad)

    def apply_coords(self, coords):
        (new_h, new_w), (y, x) = self.new_size, self.corner
        return coords * (new_w / self.w, new_h / self.h) - (x, y)


class LargeScaleJitter(T.Augmentation):
    """Fit into a square of `size` times a random scale, then crop and pad to the size.

    Labels are padded with `label_pad`.
    """

    def __init__(self, min_scale, max_scale, size, label_pad=0):
        super().__init__()
        self.resize = T.ResizeScale(min_scale, max_scale, size, size)
        self.crop = T.FixedSizeCrop((size, size), pad=False)
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        resize = self.resize.get_transform(image)
        new_size = max(resize.new_h, 1), max(resize.new_w, 1)
        crop = self.crop.get_transform(_blank(new_size)).transforms[0]
        corner = int(crop.y0), int(crop.x0)
        size = self.size, self.size
        return ResizeAndCrop(h, w, new_size, corner, size, self.label_pad)


class ResizeShortestEdgeAndCrop(T.Augmentation):
    """Resize the shorter edge to a random length, then crop unless `crop_size` is None.

    A crop in which one category has more than `max_area` of the labelled pixels is drawn again.
    """

    def __init__(self, short_edge_length, max_size, sample_style, crop_type="absolute",
                 crop_size=None, max_area=1.0, ignore_label=255):  # fmt: skip
        super().__init__()
        self.resize = ResizeShortestEdge(short_edge_length, max_size, sample_style)
        self.crop = None if crop_size is None else T.RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image, sem_seg):
        h, w = image.shape[:2]
        resize = self.resize.get_transform(image)
        new_size = (resize.new_h, resize.new_w) if isinstance(resize, T.ResizeTransform) else (h, w)
        if self.crop is None:
            return ResizeAndCrop(h, w, new_size, (0, 0), new_size)
        if self.max_area < 1 and sem_seg is None:
            raise ValueError(
                "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA must be 1 for records without "
                f"sem_seg_file_name; got {self.max_area}"
            )
        for _ in range(_MAX_TRIES):
            crop = self.crop.get_transform(_blank(new_size))
            transform = ResizeAndCrop(h, w, new_size, (crop.y0, crop.x0), (crop.h, crop.w))
            if self.max_area >= 1 or self._is_mixed(transform.apply_segmentation(sem_seg)):
                break
        return transform

    def _is_mixed(self, labels):
        counts = np.bincount(labels.ravel())
        counts[self.ignore_label : self.ignore_label + 1] = 0
        return np.count_nonzero(counts) > 1 and counts.max() < counts.sum() * self.max_area


class Stretch(T.Augmentation):
    """Resize to a square whose side is `size` times a random scale, so the ratio changes."""

    def __init__(self, size, min_scale=1.0, max_scale=1.0):
        super().__init__()
        self._init(locals())

    def get_transform(self, image):
        scale = 1.0
        if self.min_scale != self.max_scale:
            scale = self._rand_range(self.min_scale, self.max_scale)
        side = max(round(self.size * scale), 1)
        return T.ResizeTransform(*image.shape[:2], side, side, Image.BILINEAR)


class StretchAndCrop(ResizeShortestEdgeAndCrop):
    """Stretch to a square of a random size, then crop as `ResizeShortestEdgeAndCrop` does."""

    def __init__(self, size, min_scale, max_scale, crop_type="absolute", crop_size=None,
                 max_area=1.0, ignore_label=255):  # fmt: skip
        T.Augmentation.__init__(self)
        self.resize = Stretch(size, min_scale, max_scale)
        self.crop = None if crop_size is None else T.RandomCrop(crop_type, crop_size)
        self._init(locals())


class ResizeShortestEdge(T.ResizeShortestEdge):
    """detectron2's, but a side of an image of 20000 x 1 keeps one pixel."""

    def get_transform(self, image):
        resize = super().get_transform(image)
        if isinstance(resize, T.ResizeTransform):
            resize.new_h, resize.new_w = max(resize.new_h, 1), max(resize.new_w, 1)
        return resize


class ColorAugSSD(T.Augmentation):
    """Random brightness, contrast, saturation and hue of an RGB image (uint8), as in SSD.

    Random numbers come from Python's `random`, as in detectron2's ColorAugSSDTransform.
    """

    def get_transform(self, image):
        before = after = _UNCHANGED  # tables of RGB values, applied before and after those of HSV
        hsv = []
        if random.randrange(2):
            before = _line(before, add=random.uniform(-32, 32))
        contrast_first = random.randrange(2)
        if contrast_first and random.randrange(2):
            before = _line(before, factor=random.uniform(0.5, 1.5))
        if random.randrange(2):
            saturation = _line(_UNCHANGED, factor=random.uniform(0.5, 1.5))
            hsv.append(np.stack([_UNCHANGED, saturation, _UNCHANGED], -1))
        if random.randrange(2):
            hue = (np.arange(256) + random.randint(-18, 18)) % 180
            hsv.append(np.stack([hue.astype(np.uint8), _UNCHANGED, _UNCHANGED], -1))
        if not contrast_first and random.randrange(2):
            after = _line(after, factor=random.uniform(0.5, 1.5))
        return T.ColorTransform(partial(_recolour, before=before, hsv=hsv, after=after))


_UNCHANGED = np.arange(256, dtype=np.uint8)


def _line(table, factor=1.0, add=0.0):
    return (table.astype(np.float32) * factor + add).clip(0, 255).astype(np.uint8)


def _recolour(image, before, hsv, after):
    image = cv2.LUT(in_order(image), before)
    for table in hsv:  # one by one, because upstream rounds to 8 bits after each
        image = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
        image = cv2.cvtColor(image, cv2.COLOR_HSV2RGB)
    return cv2.LUT(image, after)


class RandomSaturation(T.Augmentation):
    """Blend an image with its grey version by a factor from `low` to `high`."""

    def __init__(self, low, high):
        super().__init__()
        self._init(locals())

    def get_transform(self, image):
        factor = self._rand_range(self.low, self.high)
        return T.ColorTransform(partial(_saturated, factor=factor))


def _saturated(image, factor):
    grey = image @ np.array([0.299, 0.587, 0.114])  # (H, W)
    blended = factor * image + (1 - factor) * grey[..., None]
    return blended.clip(0, 255).astype(np.uint8)


class RandomRotation(T.Augmentation):
    """Rotate by up to `degrees` about a point up to `shift` of the image size from its centre.

    The size is kept. Pixels from outside are PAD_VALUE in images, `label_pad` in labels.
    """

    def __init__(self, degrees, shift, label_pad=0):
        super().__init__()
        self._init(locals())

    def get_transform(self, image):
        h, w = image.shape[:2]
        angle = float(self._rand_range(-self.degrees, self.degrees))
        center = self._rand_range(0.5 - self.shift, 0.5 + self.shift, 2) * (w, h)
        return Rotate(h, w, angle, center, self.label_pad)


class Rotate(T.Transform):
    """Rotate an image (h, w) by degrees, anticlockwise, about `center` (x, y)."""

    def __init__(self, h, w, angle, center, label_pad=0):
        super().__init__()
        self._set_attributes(locals())
        self.matrix = cv2.getRotationMatrix2D(tuple(map(float, center)), angle, 1)  # (2, 3)

    def apply_image(self, img):
        return self._warp(img, cv2.INTER_LINEAR, PAD_VALUE)

    def apply_segmentation(self, segmentation):
        """(h, w[, C]), channel by channel, because OpenCV accepts only a few channels."""
        if segmentation.ndim == 2:
            return self._warp(segmentation, cv2.INTER_NEAREST, self.label_pad)
        parts = segmentation.transpose(2, 0, 1)
        return np.stack([self.apply_segmentation(part) for part in parts], -1)

    def apply_coords(self, coords):
        """Coordinates of corners: the centre of the first pixel is (0.5, 0.5)."""
        return (coords - 0.5) @ self.matrix[:, :2].T + self.matrix[:, 2] + 0.5

    def _warp(self, array, interpolation, border):
        if array.dtype == np.int32:
            array = array.astype(np.float32)  # exact below 2**24
            return self._warp(array, interpolation, border).astype(np.int32)
        border = (border, border, border)
        size = self.w, self.h
        return cv2.warpAffine(
            np.ascontiguousarray(array), self.matrix, size, flags=interpolation, borderValue=border
        )


def in_order(image: np.ndarray) -> np.ndarray:
    """The image (h, w[, C]) contiguous in memory; OpenCV copies a flipped view faster."""
    if image.strides[1] < 0:
        return cv2.flip(np.ascontiguousarray(image[:, ::-1]), 1)
    image = np.ascontiguousarray(image)
    return image.copy() if min(image.strides) < 0 else image  # of one row, NumPy leaves it


def pad(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """(h, w[, C]) -> (*size[, C]), padded at the bottom and at the right."""
    height, width = array.shape[:2]
    if (height, width) == tuple(size):
        return array
    padded = np.full((*size, *array.shape[2:]), value, array.dtype)
    padded[:height, :width] = array
    return padded


def nearest(size: int, new_size: int, like_pillow: bool) -> np.ndarray:
    """The index of the nearest of `size` pixels for each of `new_size`: Pillow's or torch's."""
    if like_pillow:
        row = Image.fromarray(np.arange(size, dtype=np.int32)[None])  # (1, size)
        return np.asarray(row.resize((new_size, 1), Image.NEAREST))[0]
    index = np.arange(new_size) * (size / new_size)
    return index.astype(np.float32).astype(np.int64).clip(max=size - 1)  # float32 as in torch


def _blank(size: tuple[int, int]) -> np.ndarray:
    """An image of that size without memory, for functions that use only its size."""
    return np.broadcast_to(np.uint8(0), size)
