"""Pictures in place of emoji: a folder of small coloured discs, named by code points."""

from pathlib import Path

import numpy as np
from PIL import Image

from rankseg_d2.data.stickers.build import code_points


def make_emoji(folder: Path, num_categories: int, seed: int = 0, name: str = "{:x}.png") -> Path:
    """Write a disc of another colour for each sticker of a vocabulary; returns the folder."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for code in code_points(num_categories):
        picture = np.zeros((24, 24, 4), np.uint8)
        picture[x**2 + y**2 < 1] = (*rng.integers(0, 256, 3), 255)
        Image.fromarray(picture).save(folder / name.format(code))
    return folder
