"""`shapes`: scenes of simple shapes that are drawn on first use, with 10 to 2,000 categories.

`drawn.py` says what the names are. Hard scenes have smaller things, noise, and colours that vary
more.
"""

import functools
from pathlib import Path

from ..drawn.split import SPLITS
from ..shapes.build import ClipSpec, Spec
from ..shapes.vocabulary import make_vocabulary
from .common import Command
from .drawn import NUM_CATEGORIES, DrawnDataset

NUM_IMAGES = {"train": 4000, "val": 400}
_NUM_VIDEOS = {"train": 240, "val": 40}


def _spec(
    kind: type, hard: bool, folder: Path, num_categories: int, split: str, count: int
) -> Spec | ClipSpec:
    return kind(num_categories, split, count, hard=hard)


def _dataset(hard: bool) -> DrawnDataset:
    specs = functools.partial(_spec, Spec, hard), functools.partial(_spec, ClipSpec, hard)
    counts = NUM_IMAGES, _NUM_VIDEOS
    return DrawnDataset("shapes", make_vocabulary, *specs, *counts, "_hard" if hard else "")


PLAIN, HARD = _dataset(hard=False), _dataset(hard=True)


def register_shapes(
    num_categories: int = NUM_CATEGORIES,
    *,
    hard: bool = False,
    root: str | Path | None = None,
    num_images: dict[str, int] | None = None,
    num_videos: dict[str, int] | None = None,
) -> None:
    """Register the data sets of a number of categories; see `DrawnDataset.register`.

    hard: the scenes that are hard to read.
    """
    (HARD if hard else PLAIN).register(num_categories, root, num_images, num_videos)


def register(root: Path) -> None:
    """Register the data sets of the default size."""
    PLAIN.register(root=root)


COMMANDS = {"shapes": Command(PLAIN.prepare, SPLITS, "draw the built-in data set, 100 categories")}
