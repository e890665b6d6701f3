"""Pictures that a user has in memory, as RGB pixels."""

from typing import Any

import numpy as np

from ..data.formats.image_files import upright_rgb


def is_picture(value: Any) -> bool:
    """Whether it is one of Pillow's images, an array or a tensor with the dimensions of one."""
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3)
    return hasattr(value, "convert") or (hasattr(value, "permute") and value.dim() in (2, 3))


def pixels_of(picture: Any) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a PIL image, an array (H, W), (H, W, 1, 3 or 4) or a tensor (3, H, W).

    Arrays are RGB, as Pillow gives them; OpenCV's need `image[..., ::-1]`.
    """
    if hasattr(picture, "convert"):
        return upright_rgb(picture, getattr(picture, "filename", "") or "in memory")
    if hasattr(picture, "permute"):
        tensor = picture.detach().cpu()
        tensor = tensor if tensor.dim() == 2 else tensor.permute(1, 2, 0)
        picture = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    pixels = np.asarray(picture)
    if pixels.dtype.kind not in "iuf":  # integers and floats
        raise ValueError(f"an image has numbers from 0 to 255, not {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise ValueError(
            f"an image is an array (height, width, 3) or a tensor (3, height, width), not "
            f"{tuple(np.shape(picture))}"
        )
    pixels = pixels[..., :3] if pixels.shape[2] != 1 else np.repeat(pixels, 3, 2)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= 255:  # also NaN
        raise ValueError(f"an image has values from 0 to 255, not from {low} to {high}")
    if pixels.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError("the values of the image are from 0 to 1; multiply it by 255")
    return np.rint(pixels).astype(np.uint8, order="C")
