"""What a prediction is made of: files, folders, arrays, one after the other.

`open_source` says what the user has given; nothing is read before it is needed.
"""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.formats.image_files import read_rgb
from ..data.formats.video_frames import natural_order
from ..errors import cut, short
from .pixels import is_picture, pixels_of

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True)
class Item:
    """One image; `read` gives its pixels (H, W, 3), RGB."""

    name: str  # its path below the folder that was given, or a number
    path: str  # "" where it is not of a file
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Source:
    """The images that a user has given."""

    items: Iterable[Item]
    is_one: bool = False  # an image by itself, not a list of one
    is_list: bool = False


def open_source(source: Any) -> Source:
    """The images of a path, glob, folder, array, PIL image, tensor, or of a list or generator."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str | os.PathLike):
        return _of_path(os.fspath(source))
    if is_picture(source):
        return Source([_of_picture(source, "0")], is_one=True)
    if isinstance(source, list | tuple):
        return Source([*_each(source, _names(source))], is_list=True)
    if isinstance(source, Iterable) and not hasattr(source, "shape"):
        return Source(_each(source))
    raise TypeError(_what(source))


def _each(pictures: Iterable[Any], names: Sequence[str] = ()) -> Iterator[Item]:
    """An item of each picture; files have the names that are given, else their base names."""
    for number, picture in enumerate(pictures):
        if isinstance(picture, str | os.PathLike):
            path = os.path.expanduser(os.fspath(picture))
            yield _of_file(path, names[number] if names else os.path.basename(path))
        elif is_picture(picture):
            yield _of_picture(picture, str(number))
        else:
            raise TypeError(_what(picture))


def _names(pictures: Sequence[Any]) -> list[str]:
    """The names of the files in a list: their paths below the folder that they share."""
    files = [isinstance(picture, str | os.PathLike) for picture in pictures]
    paths = [
        os.path.abspath(os.path.expanduser(os.fspath(picture))) if is_file else ""
        for picture, is_file in zip(pictures, files, strict=True)
    ]
    folders = [os.path.dirname(path) for path in paths if path]
    root = os.path.commonpath(folders) if folders else ""
    return [os.path.relpath(path, root) if path else "" for path in paths]


def _of_path(path: str) -> Source:
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        files = image_files(path)
        if not files:
            hint = "; give the path of one of its videos" if _files(path, VIDEOS) else ""
            raise FileNotFoundError(
                f"{path} has no images: no file in it ends in {', '.join(IMAGES)}{hint}"
            )
        items = [_of_file(os.path.join(path, name), name) for name in files]
        return Source(items)
    if not os.path.exists(path) and glob.has_magic(path):
        found, root = _matching(path)
        items = [_of_file(name, os.path.relpath(name, root)) for name in found]
        return Source(items)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{cut(path)} does not exist; give an image, a folder or a pattern")
    return Source([_of_file(path, os.path.basename(path))], is_one=True)


def image_files(folder: str) -> list[str]:
    """The images in a folder and the folders within it: paths below it, in natural order."""
    return _files(folder, IMAGES)


def _files(folder: str, ends: tuple[str, ...]) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(parent, folder)
        found += [
            os.path.normpath(os.path.join(inside, name))
            for name in names
            if name.lower().endswith(ends) and not name.startswith(".")
        ]
    return sorted(found, key=natural_order)


def video_files(source: str, counts: Callable[[str], bool]) -> list[tuple[str, str]]:
    """(path, name) of a video, or of those in a folder without images, or of a pattern.

    [] where the source has none, or images too. Names are as those of images; in a folder only
    files whose name `counts` are seen.
    """
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        names = [] if any(map(counts, image_files(path))) else _files(path, VIDEOS)
        return [(os.path.join(path, name), name) for name in names if counts(name)]
    if not os.path.exists(path) and glob.has_magic(path):
        found, root = _matching(path)
        are_videos = all(map(is_video, found))
        return [(name, os.path.relpath(name, root)) for name in found] if are_videos else []
    return [(path, os.path.basename(path))] if is_video(path) else []


def _matching(pattern: str) -> tuple[list[str], str]:
    """The files that match, at least one, and the folder that they share."""
    found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)), key=natural_order)
    if not found:
        raise FileNotFoundError(f"no file matches {cut(pattern)}")
    return found, os.path.commonpath([os.path.dirname(name) or "." for name in found])


def is_video(source: Any) -> bool:
    """Whether it is the path of a video file."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(VIDEOS)


def _of_file(path: str, name: str) -> Item:
    return Item(name, path, lambda: read_rgb(path))


def _of_picture(picture: Any, name: str) -> Item:
    return Item(name, getattr(picture, "filename", "") or "", lambda: pixels_of(picture))


def _what(value: Any) -> str:
    return (
        "give a path, a pattern, a folder, an array (height, width, 3), a PIL image, a tensor "
        f"(3, height, width), or a list or generator of those, not {short(value)}"
    )
