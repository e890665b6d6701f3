"""Public data sets, registered on import under the names that detectron2's users know.

Registering reads no file. An error about missing files comes when a data set is loaded.
"""

from collections.abc import Iterable
from pathlib import Path

from . import (
    ade20k,
    ade20k_full,
    atr,
    camvid,
    cihp,
    cityscapes,
    coco,
    coco_lvis,
    coco_stuff,
    drawn,
    lip,
    mhp,
    pascal_context,
    shapes,
    stickers,
    vspw,
    ytvis,
)
from .common import data_root

__all__ = ["COMMANDS", "data_root", "drawn_sizes", "register_all", "register_named"]

_MODULES = (
    ade20k,
    ade20k_full,
    coco,
    coco_stuff,
    coco_lvis,
    pascal_context,
    cityscapes,
    camvid,
    lip,
    cihp,
    mhp,
    atr,
    vspw,
    ytvis,
    shapes,
    stickers,
)

# What `rankseg-d2 dataset prepare` can make, by name.
COMMANDS = {name: command for module in _MODULES for name, command in module.COMMANDS.items()}


def register_all(root: Path | None = None) -> None:
    """Register every public data set below `root`; a later call replaces the root."""
    for module in _MODULES:
        module.register(data_root() if root is None else Path(root))


def register_named(names: Iterable[str]) -> None:
    """Register each of `names` that is a data set drawn on first use, and not registered yet."""
    drawn.register_named((shapes.PLAIN, shapes.HARD, stickers.STICKERS), names)


def drawn_sizes() -> list[tuple[str, dict[str, int], int]]:
    """Of each built-in data set: its name, images of each split, and classes by default."""
    sizes = {"shapes": shapes.NUM_IMAGES, "stickers": stickers.NUM_IMAGES}
    return [(name, counts, drawn.NUM_CATEGORIES) for name, counts in sizes.items()]


register_all()
