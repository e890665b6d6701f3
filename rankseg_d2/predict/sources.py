"""What a prediction is made of: files, folders, arrays, videos, one after the other.

`open_source` says what the user has given. Files are decoded by threads, a few ahead of the model.
"""

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.formats.image_files import read_rgb
from ..data.formats.video_frames import natural_order
from ..errors import cut, short

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True)
class Item:
    """One image; `read` gives its pixels (H, W, 3), RGB."""

    name: str  # its path below the folder that was given, or a number
    path: str = ""
    read: Callable[[], np.ndarray] = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Source:
    """The images that a user has given."""

    items: Iterable[Item]
    is_one: bool = False  # an image by itself, not a list of one
    is_list: bool = False
    count: int | None = None  # None: not known before the end


def open_source(source: Any) -> Source:
    """The images of a path, glob, folder, array, PIL image, tensor, or of a list or generator."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str | os.PathLike):
        return _of_path(os.fspath(source))
    if _is_picture(source):
        return Source([_of_picture(source, "0")], is_one=True, count=1)
    if isinstance(source, list | tuple):
        return Source([*_each(source)], is_list=True, count=len(source))
    if isinstance(source, Iterable) and not hasattr(source, "shape"):
        return Source(_each(source))
    raise TypeError(_what(source))


def _each(pictures: Iterable[Any]) -> Iterator[Item]:
    for number, picture in enumerate(pictures):
        if isinstance(picture, str | os.PathLike):
            yield _of_file(os.fspath(picture), os.path.basename(picture))
        elif _is_picture(picture):
            yield _of_picture(picture, str(number))
        else:
            raise TypeError(_what(picture))


def _of_path(path: str) -> Source:
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        files = image_files(path)
        if not files:
            raise FileNotFoundError(
                f"{path} has no images: no file in it ends in {', '.join(IMAGES)}"
            )
        items = [_of_file(os.path.join(path, name), name) for name in files]
        return Source(items, count=len(items))
    if not os.path.exists(path) and glob.has_magic(path):
        found = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)), key=natural_order)
        if not found:
            raise FileNotFoundError(f"no file matches {cut(path)}")
        root = os.path.commonpath([os.path.dirname(name) or "." for name in found])
        items = [_of_file(name, os.path.relpath(name, root)) for name in found]
        return Source(items, count=len(items))
    if not os.path.exists(path):
        raise FileNotFoundError(f"{cut(path)} does not exist; give an image, a folder or a pattern")
    return Source([_of_file(path, os.path.basename(path))], is_one=True, count=1)


def image_files(folder: str) -> list[str]:
    """The images in a folder and the folders within it: paths below it, in natural order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(parent, folder)
        found += [
            os.path.normpath(os.path.join(inside, name))
            for name in names
            if name.lower().endswith(IMAGES) and not name.startswith(".")
        ]
    return sorted(found, key=natural_order)


def is_video(source: Any) -> bool:
    """Whether it is the path of a video file."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(VIDEOS)


def _of_file(path: str, name: str) -> Item:
    return Item(name, path, lambda: read_rgb(path))


def _of_picture(picture: Any, name: str) -> Item:
    return Item(name, getattr(picture, "filename", "") or "", lambda: pixels_of(picture))


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3)
    return hasattr(value, "convert") or (hasattr(value, "permute") and value.dim() in (2, 3))


def pixels_of(picture: Any) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a PIL image, an array (H, W), (H, W, 1, 3 or 4) or a tensor (3, H, W).

    Arrays are RGB, as Pillow gives them; OpenCV's need `image[..., ::-1]`.
    """
    if hasattr(picture, "convert"):
        from PIL import ImageOps

        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    if hasattr(picture, "permute"):
        tensor = picture.detach().cpu()
        tensor = tensor if tensor.dim() == 2 else tensor.permute(1, 2, 0)
        picture = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    pixels = np.asarray(picture)
    if pixels.dtype == bool or not np.issubdtype(pixels.dtype, np.number):
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
    if np.issubdtype(pixels.dtype, np.floating) and 0 < high <= 1:
        raise ValueError("the values of the image are from 0 to 1; multiply it by 255")
    return pixels.astype(np.uint8)


def _what(value: Any) -> str:
    return (
        "give a path, a pattern, a folder, an array (height, width, 3), a PIL image, a tensor "
        f"(3, height, width), or a list or generator of those, not {short(value)}"
    )


def read_ahead(items: Iterable[Item], threads: int, ahead: int) -> Iterator[tuple[Item, Any]]:
    """Each item, and its pixels or the error of reading them, at most `ahead` of them decoded."""
    with ThreadPoolExecutor(threads, "read ahead") as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(_read, item)))
                if len(waiting) > ahead:
                    one, pixels = waiting.popleft()
                    yield one, pixels.result()
            while waiting:
                one, pixels = waiting.popleft()
                yield one, pixels.result()
        finally:
            for _, pixels in waiting:
                pixels.cancel()


def _read(item: Item) -> np.ndarray | Exception:
    try:
        return item.read()
    except Exception as error:
        return error


def batches(
    read: Iterable[tuple[Item, Any]], size: int, window: int = 4
) -> Iterator[list[list[tuple[int, Item, np.ndarray]]]]:
    """Groups of `window` batches; in each, batches of images of one size, with their numbers.

    An error takes the place of its item's pixels, in a batch of its own.
    """
    group: list[tuple[int, Item, Any]] = []
    for number, (item, pixels) in enumerate(read):
        group.append((number, item, pixels))
        if len(group) == (size if size == 1 else size * window):
            yield _by_size(group, size)
            group = []
    if group:
        yield _by_size(group, size)


def _by_size(group, size):
    by_shape: dict[Any, list] = {}
    for entry in group:
        key = entry[2].shape if isinstance(entry[2], np.ndarray) else entry[0]
        by_shape.setdefault(key, []).append(entry)
    return [same[i : i + size] for same in by_shape.values() for i in range(0, len(same), size)]
