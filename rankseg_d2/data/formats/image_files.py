"""Open image files: whatever a decoder raises becomes one error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from detectron2.utils.file_io import PathManager

from ...files import check_regular

_LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"}  # Pillow's names of formats
_LOSSY_IN_TIFF = {"jpeg", "tiff_jpeg", "webp"}
_PNG = b"\x89PNG\r\n\x1a\n"  # its first bytes
_MOST_PER_BYTE = 1032  # bytes that one of a PNG can hold; a pixel of three channels takes more


class UnreadableError(ValueError):
    """An image file is damaged, or not an image."""


@contextmanager
def opened(path: str, kind: str) -> Iterator[BinaryIO]:
    """The file of an image; `kind` is what errors call it.

    An error while it is decoded becomes an UnreadableError: decoders raise many types.
    """
    try:
        check_regular(path)
        with PathManager.open(path, "rb") as file:
            yield file
    except UnreadableError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the {kind} {path} does not exist") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        if type(error).__name__ == "UnidentifiedImageError":  # Pillow's words show the open file
            reason = "it is damaged, or not an image of a known format"
        raise UnreadableError(
            f"the {kind} {path} cannot be read: {reason}. Save or download it again, or remove it."
        ) from error


def read_rgb(path: str, kind: str = "image") -> np.ndarray:
    """The upright RGB image (H, W, 3) of a file."""
    from PIL import Image

    with opened(path, kind) as file:
        return upright_rgb(Image.open(file), path)


def upright_rgb(image: Any, path: str) -> np.ndarray:
    """The upright RGB pixels (H, W, 3) of one of Pillow's images, which stays as it is."""
    from PIL import ImageOps

    check_depth(image, path)
    image.load()  # the first time, Pillow raises the error of damaged pixels; later, it may not
    with suppress(Exception):  # a broken EXIF block must not spoil a good image
        image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGB"))


def read_labels(path: str, kind: str) -> Any:
    """The decoded Pillow image of a file with labels."""
    from PIL import Image

    with opened(path, kind) as file:
        image = Image.open(file)
        check_exact(image, path, kind)
        image.load()
    return image


def image_size(path: str, kind: str, decode: bool = False) -> tuple[int, int]:
    """Height and width of the upright image, from its header; with `decode`, all of it is read."""
    from PIL import Image

    with opened(path, kind) as file, Image.open(file) as image:
        width, height = image.size
        if decode:
            check_depth(image, path)
            # faster, and still reads the whole JPEG
            image.draft("L", (max(width // 8, 1), max(height // 8, 1)))
            image.load()  # before the EXIF block, whose reading hides errors of the pixels
        is_turned = False
        with suppress(Exception):  # a broken EXIF block
            is_turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation
    return (width, height) if is_turned else (height, width)


def check_exact(image: Any, path: str, kind: str) -> None:
    """UnreadableError for a format that changes values, under whatever name."""
    name = image.format
    if name in _LOSSY or (name == "TIFF" and image.info.get("compression") in _LOSSY_IN_TIFF):
        raise UnreadableError(
            f"the {kind} {path} is compressed as {name}, which changes values, so that pixels get "
            "other classes. Save the labels as PNG from where they were exact."
        )


def check_png(data: bytes, width: int, height: int) -> None:
    """OSError for a PNG that says more than its bytes hold: OpenCV would first make room for it."""
    position = len(_PNG)
    while data.startswith(_PNG) and position + 8 <= len(data):
        position += 12 + int.from_bytes(data[position : position + 4], "big")  # of the next chunk
        if position > len(data):
            raise OSError("it is damaged or too short")
    if data.startswith(_PNG) and width * height > _MOST_PER_BYTE * len(data):
        raise OSError(f"it is too short for {width} x {height} pixels")


def check_depth(image: Any, path: str) -> None:
    """UnreadableError if Pillow would clip the image's values to 255 when it converts to RGB."""
    if image.mode.startswith(("I", "F")):
        raise UnreadableError(
            f"the image {path} has more than 8 bits per pixel (Pillow's mode {image.mode}); scale "
            "its values to 0 to 255, and save it with 8 bits"
        )
