"""Transforms that fvcore lacks: resizing and colours. A transform is one fixed operation."""

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

__all__ = ["ColorTransform", "ResizeTransform"]

_TORCH_MODES = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}


class ResizeTransform(Transform):
    """Resize (h, w) to (new_h, new_w): uint8 with Pillow (antialiased), floats with torch."""

    def __init__(self, h, w, new_h, new_w, interp=None):
        super().__init__()
        interp = Image.BILINEAR if interp is None else interp
        self._set_attributes(locals())

    def apply_image(self, img, interp=None):
        """(h, w) or (h, w, c) -> the same with (new_h, new_w); `interp` is Pillow's constant."""
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(f"{self} is not for an array of shape {img.shape}: h, w must agree")
        interp = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            one_channel = img.ndim == 3 and img.shape[2] == 1  # Pillow knows such only as (h, w)
            image = Image.fromarray(img[:, :, 0] if one_channel else img)
            resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
            return resized[:, :, None] if one_channel else resized
        if interp not in _TORCH_MODES:
            raise ValueError(f"interp={interp} resizes only arrays of uint8, not of {img.dtype}")
        pixels = torch.from_numpy(np.ascontiguousarray(img)).reshape(self.h, self.w, -1)
        pixels = pixels.permute(2, 0, 1)[None]  # (1, c, h, w)
        mode = _TORCH_MODES[interp]
        resized = F.interpolate(pixels, (self.new_h, self.new_w), mode=mode)
        # (1, c, new_h, new_w) -> (new_h, new_w[, c])
        return resized[0].permute(1, 2, 0).reshape(self.new_h, self.new_w, *img.shape[2:]).numpy()

    def apply_coords(self, coords):
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation):
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self):
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class ColorTransform(Transform):
    """Apply `op`, a function from array to array, to the image and leave geometry alone."""

    def __init__(self, op):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img):
        return self.op(img)

    def apply_coords(self, coords):
        return coords

    def apply_segmentation(self, segmentation):
        return segmentation

    def inverse(self):
        return NoOpTransform()
