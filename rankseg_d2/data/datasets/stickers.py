"""`stickers`: emoji on grounds, drawn on first use, with 20 to 1,000 categories.

`drawn.py` says what its names are.
"""

import functools
from pathlib import Path

from ..drawn.split import SPLITS
from ..stickers.build import ClipSpec, Spec, with_pictures
from ..stickers.vocabulary import make_vocabulary
from .common import Command
from .drawn import NUM_CATEGORIES, DrawnDataset

NUM_IMAGES = {"train": 4000, "val": 400}
_NUM_VIDEOS = {"train": 240, "val": 40}


def _dataset(emoji: str | Path | None = None, photos: str | Path | None = None) -> DrawnDataset:
    def spec(kind: type, folder: Path, num_categories: int, split: str, count: int):
        plain = functools.partial(kind, num_categories, split, count)
        return with_pictures(plain, folder, emoji, photos)

    specs = functools.partial(spec, Spec), functools.partial(spec, ClipSpec)
    return DrawnDataset("stickers", make_vocabulary, *specs, NUM_IMAGES, _NUM_VIDEOS)


STICKERS = _dataset()


def register_stickers(
    num_categories: int = NUM_CATEGORIES,
    *,
    root: str | Path | None = None,
    num_images: dict[str, int] | None = None,
    num_videos: dict[str, int] | None = None,
    emoji: str | Path | None = None,
    photos: str | Path | None = None,
) -> None:
    """Register the data sets of a number of categories; see `DrawnDataset.register`.

    `emoji` and `photos` as in `with_pictures`.
    """
    _dataset(emoji, photos).register(num_categories, root, num_images, num_videos)


def register(root: Path) -> None:
    """Register the data sets of the default size."""
    STICKERS.register(root=root)


def _prepare(root: Path, split: str, workers: int, emoji: str | None, photos: str | None) -> None:
    _dataset(emoji, photos).prepare(root, split, workers)


COMMANDS = {
    "stickers": Command(
        _prepare,
        SPLITS,
        "draw the built-in data set of emoji, 100 categories",
        values={
            "emoji": "a font of emoji, or a folder of pictures such as 1f34e.png; by default "
            "RANKSEG_EMOJI, else the installed Noto Color Emoji",
            "photos": 'a folder of photos for backgrounds, or "scikit-image"; by default '
            "RANKSEG_PHOTOS, else drawn ones",
        },
    )
}
