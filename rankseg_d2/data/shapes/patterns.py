"""The shapes, textures and colours of things and stuff, as functions of points (u, v)."""

import numpy as np


def _polar(u, v):
    return np.hypot(u, v), np.arctan2(v, u)


def _star(u, v):
    r, angle = _polar(u, v)
    ray = abs((angle * 5 / (2 * np.pi)) % 1 - 0.5) * 2  # 1 on a ray, 0 between two
    return r <= 0.42 + 0.58 * ray


def _flower(u, v):
    r, angle = _polar(u, v)
    return r <= 0.7 + 0.25 * np.cos(4 * angle)


def _gear(u, v):
    r, angle = _polar(u, v)
    return r <= 0.78 + 0.17 * np.sign(np.cos(9 * angle))


def _drop(u, v):
    return ((u - 0.25) ** 2 + v**2 <= 0.36) | ((abs(v) <= 0.43 * (u + 1)) & (u <= 0))


# (u, v) in [-1, 1] -> whether the point is inside. A small vocabulary uses the first ones only.
SHAPES = {
    "disc": lambda u, v: u**2 + v**2 <= 0.7,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.72,
    "triangle": lambda u, v: (v <= 0.6) & (2 * abs(u) <= v + 1.0),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.28) & (abs(u) + abs(v) <= 1.1),
    "ring": lambda u, v: abs(u**2 + v**2 - 0.58) <= 0.3,
    "star": _star,
    "bar": lambda u, v: (abs(u) <= 0.95) & (abs(v) <= 0.35),
    "crescent": lambda u, v: (u**2 + v**2 <= 0.9) & ((u - 0.5) ** 2 + v**2 > 0.42),
    "hourglass": lambda u, v: (abs(u) <= abs(v) + 0.12) & (abs(v) <= 0.82),
    "corner": lambda u, v: (np.maximum(abs(u), abs(v)) <= 0.8) & (np.minimum(u, v) <= -0.2),
    "flower": _flower,
    "oval": lambda u, v: u**2 + 3.2 * v**2 <= 0.92,
    "gear": _gear,
    "half": lambda u, v: ((v - 0.3) ** 2 + u**2 <= 0.92) & (v <= 0.3),
    "arrow": lambda u, v: ((abs(v) <= 0.25) & (abs(u) <= 0.9)) | (abs(u - 0.45) + abs(v) <= 0.5),
    "drop": _drop,
}


def _dots(u, v):
    return ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 <= 0.1).astype(np.float32)


def _bricks(u, v):
    rows = np.floor(v)
    return ((v % 1 <= 0.25) | ((u / 2 + rows / 2) % 1 <= 0.15)).astype(np.float32)


# (u, v) in periods of the texture -> weight of the second tone, 0 to 1.
TEXTURES = {
    "plain": lambda u, v: np.full_like(u, 0.3),
    "striped": lambda u, v: (v % 1 <= 0.5).astype(np.float32),
    "checked": lambda u, v: ((np.floor(u) + np.floor(v)) % 2).astype(np.float32),
    "dotted": _dots,
    "latticed": lambda u, v: (np.minimum(u % 1, v % 1) <= 0.25).astype(np.float32),
    "wavy": lambda u, v: ((v + 0.4 * np.sin(np.pi * u)) % 1 <= 0.5).astype(np.float32),
    "ringed": lambda u, v: (np.hypot(u, v) % 1 <= 0.5).astype(np.float32),
    "rippled": lambda u, v: (0.5 + 0.5 * np.sin(2 * np.pi * v)).astype(np.float32),
    "bricked": _bricks,
    "zigzag": lambda u, v: ((v + abs(u % 2 - 1)) % 1 <= 0.5).astype(np.float32),
}

COLORS = {
    "red": (205, 50, 45),
    "blue": (55, 90, 205),
    "green": (60, 160, 65),
    "yellow": (225, 205, 55),
    "purple": (135, 65, 175),
    "orange": (230, 130, 40),
    "cyan": (70, 195, 205),
    "pink": (230, 130, 180),
    "brown": (125, 80, 45),
    "white": (230, 230, 225),
    "grey": (130, 130, 135),
    "olive": (130, 135, 45),
    "black": (40, 40, 45),
    "lime": (160, 225, 80),
}

# The second tone of each ground; the first one is the category's colour, faded.
GROUNDS = {
    "wall": (205, 200, 190),
    "field": (75, 125, 60),
    "sand": (215, 185, 130),
    "water": (50, 100, 150),
    "floor": (90, 65, 50),
}
