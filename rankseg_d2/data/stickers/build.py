"""The splits of `stickers`: what determines their files, and what these show."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...files import read_json
from ..drawn.images import ImageSpec
from ..drawn.layout import Vocabulary
from ..drawn.split import is_made
from ..drawn.videos import VideoSpec
from . import pictures
from .scene import Scene, draw, make_scene
from .vocabulary import make_vocabulary

VERSION = 1  # of drawing and files: splits of another version are made again


class _Stickers:
    name: ClassVar[str] = "stickers"

    @property
    def vocabulary(self) -> Vocabulary:
        return make_vocabulary(self.num_categories)

    def make_scene(self, seed: tuple[int, ...]) -> Scene:
        return make_scene(self.vocabulary, seed, self.width / self.height)

    def draw(self, scene: Scene, time: float = 0) -> tuple[np.ndarray, np.ndarray]:
        stickers = pictures.load_stickers(self.emoji_path, code_points(self.num_categories))
        photos = pictures.load_photos(self.photos_path) if self.photos_path else []
        return draw(scene, stickers, photos, (self.height, self.width), time)

    def facts(self) -> dict:
        facts = asdict(self)
        return {key: value for key, value in facts.items() if not key.endswith("_path")}


@dataclass(frozen=True)
class Spec(_Stickers, ImageSpec):
    """A split of images; `with_pictures` sets the last four."""

    height: int = 128
    width: int = 160
    version: int = VERSION
    emoji: str = ""  # fingerprint
    photos: str = ""
    emoji_path: Path | None = None  # the same files make the same split, wherever they lie
    photos_path: Path | None = None


@dataclass(frozen=True)
class ClipSpec(_Stickers, VideoSpec):
    """A split of videos; `with_pictures` sets the last four."""

    shortest: int = 8
    longest: int = 24
    height: int = 128
    width: int = 160
    version: int = VERSION
    emoji: str = ""
    photos: str = ""
    emoji_path: Path | None = None
    photos_path: Path | None = None


def code_points(num_categories: int) -> tuple[int, ...]:
    """Of the stickers."""
    vocabulary = make_vocabulary(num_categories)
    return tuple(kind.code_point for kind in vocabulary.categories[: vocabulary.num_things])


def with_pictures(
    make_spec: Callable[..., Any],
    folder: Path,
    emoji: str | Path | None = None,
    photos: str | Path | None = None,
) -> Any:
    """A spec with the pictures to draw from, and their fingerprints.

    Where neither is named, by an argument or by the environment, a split that `folder` holds stays
    as it is, whatever it was made from.

    Args:
        make_spec: a spec without pictures; takes them as keywords.
        emoji: a font, or a folder of pictures; by default RANKSEG_EMOJI, else the installed font.
        photos: a folder, or "scikit-image"; by default RANKSEG_PHOTOS, else none.
    """
    emoji = emoji or os.environ.get(pictures.EMOJI_VARIABLE)
    photos = photos or os.environ.get(pictures.PHOTOS_VARIABLE)
    file = folder / "spec.json"
    if not emoji and not photos and file.is_file():
        made = read_json(file)
        spec = make_spec(emoji=made.get("emoji", ""), photos=made.get("photos", ""))
        if is_made(folder, spec):
            return spec
    source = pictures.emoji_source(emoji)
    folder_of_photos = pictures.photo_folder(photos)
    keys = {"emoji_path": source, "photos_path": folder_of_photos}
    codes = code_points(make_spec().num_categories)
    files = pictures.picture_files(source, codes) if source.is_dir() else ()
    keys["emoji"] = pictures.fingerprint(source, files)
    if folder_of_photos:
        files = pictures.photo_files(folder_of_photos)
        keys["photos"] = pictures.fingerprint(folder_of_photos, files)
    return make_spec(**keys)
