"""How the grounds of `stickers` look, as functions of points (x, y) in image heights."""

import cv2
import numpy as np

_SIZE = 256  # of the lattice of random numbers
_LATTICE = np.random.default_rng(7).random((_SIZE, _SIZE), np.float32)


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise, 0 to 1, that changes over lengths of about 1."""
    x, y = np.float32(x), np.float32(y)
    values = cv2.remap(_LATTICE, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    return np.clip(values, 0, 1)


def _cloudy(x, y):
    """Noise of several scales, 0 to 1."""
    return (4 * noise(x, y) + 2 * noise(2 * x, 2 * y) + noise(4 * x, 4 * y)) / 7


def _cell(x, y):
    """A random number for each square of side 1."""
    return _LATTICE[np.int64(np.floor(y)) % _SIZE, np.int64(np.floor(x)) % _SIZE]


def _sky(x, y):
    return np.clip(3 * _cloudy(2.5 * x, 5 * y) - 1.2, 0, 1)


def _grass(x, y):
    return 0.6 * noise(45 * x, 14 * y) + 0.4 * noise(6 * x, 6 * y)


def _bricks(x, y):
    y = 8 * y
    x = 4 * x + 0.5 * (np.floor(y) % 2)
    mortar = (y % 1 < 0.14) | (x % 1 < 0.07)
    return np.where(mortar, 1, 0.4 * _cell(x, y))


def _sand(x, y):
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * y + 1.5 * noise(2 * x, 2 * y)))
    return 0.4 * ripples + 0.6 * noise(50 * x, 50 * y)


def _water(x, y):
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * y + 2.2 * noise(3 * x, 4 * y)))
    return waves**2 * (0.3 + 0.7 * noise(4 * x, 9 * y))


def _planks(x, y):
    y = 5 * y
    shifted = 0.7 * x + _cell(np.zeros_like(x), y)
    gaps = (y % 1 < 0.05) | (shifted % 1 < 0.012)
    grain = noise(4 * x, 14 * y)
    return np.where(gaps, 1, 0.35 * grain + 0.3 * _cell(shifted, y))


def _tiles(x, y):
    x, y = 5 * x, 5 * y
    return np.where((x % 1 < 0.06) | (y % 1 < 0.06), 1, 0.3 * _cell(x, y))


# name -> two tones, and the weight of the second one at a point
APPEARANCES = {
    "sky": ((110, 170, 235), (240, 245, 250), _sky),
    "background": ((0, 0, 0), (0, 0, 0), lambda x, y: _cloudy(2.5 * x, 2.5 * y)),  # any tones
    "brick wall": ((165, 80, 60), (205, 195, 180), _bricks),
    "grass": ((55, 115, 40), (125, 175, 70), _grass),
    "sand": ((205, 175, 120), (235, 210, 165), _sand),
    "water": ((30, 90, 150), (125, 190, 225), _water),
    "snow": ((205, 215, 230), (250, 250, 255), lambda x, y: _cloudy(4 * x, 6 * y)),
    "road": ((70, 72, 78), (125, 125, 128), lambda x, y: noise(64 * x, 64 * y) ** 2),
    "planks": ((170, 120, 75), (85, 55, 35), _planks),
    "tiles": ((190, 205, 205), (120, 130, 135), _tiles),
}


def paint_ground(name: str, tones: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) float32 of points (H, W); tones (2, 3) of this ground."""
    weight = np.float32(APPEARANCES[name][2](x, y))[..., None]
    return tones[0] * (1 - weight) + tones[1] * weight


def paint_photo(photo: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) float32 of a photo; (0, 0) is its middle, its shorter side has length 2."""
    height, width = photo.shape[:2]
    scale = min(height, width) / 2
    columns, rows = np.float32(x * scale + width / 2), np.float32(y * scale + height / 2)
    colors = cv2.remap(photo, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return colors.astype(np.float32)
