"""Scenes of `shapes`: things and grounds with positions and velocities; their pictures at any time.

Lengths are in image heights, times in frames. The seed determines the scene, and scene and time
determine the picture: the frames of a video are pictures of one scene.
"""

from dataclasses import dataclass

import numpy as np

from ..drawn.layout import Vocabulary, nearest_ground, photograph, pixel_centers
from .patterns import COLORS, GROUNDS, SHAPES, TEXTURES
from .vocabulary import Category

_NUM_GROUNDS = (2, 4)  # fewest and most in a scene
CROWDING, CROWD_SPREAD = 0.4, 0.12  # probability that a thing is near the one before; distance
SPEED, SPIN, CAMERA_SPEED = 0.015, 0.06, 0.005  # standard deviations, per frame


@dataclass(frozen=True)
class Style:
    """How hard scenes are to read."""

    num_things: tuple[int, int]  # fewest and most in a scene
    radii: tuple[float, float]
    tone_noise: float  # standard deviation of a colour, of 255
    pixel_noise: float


PLAIN = Style(num_things=(3, 8), radii=(0.13, 0.27), tone_noise=8, pixel_noise=2)
HARD = Style(num_things=(3, 10), radii=(0.09, 0.24), tone_noise=18, pixel_noise=7)


@dataclass(frozen=True)
class Paint:
    """The appearance of one thing or ground."""

    category: int
    tones: np.ndarray  # (2, 3): the colour and the second tone of the texture
    angle: float
    period: float  # of the texture


@dataclass(frozen=True)
class Thing(Paint):
    center: np.ndarray  # (x, y)
    velocity: np.ndarray
    radius: float
    spin: float


@dataclass(frozen=True)
class Ground(Paint):
    anchor: np.ndarray  # (x, y): the ground covers the points whose nearest anchor this is


@dataclass(frozen=True)
class Scene:
    """Grounds, and things in front of them, from back to front."""

    seed: tuple[int, ...]
    vocabulary: Vocabulary
    style: Style
    grounds: tuple[Ground, ...]
    things: tuple[Thing, ...]
    camera: np.ndarray  # velocity (x, y)
    wave: np.ndarray  # of the borders between grounds: amplitude, frequency, phase
    light: np.ndarray  # brightness, and its gradient along x and y


def make_scene(
    vocabulary: Vocabulary, seed: tuple[int, ...], aspect: float, style: Style = PLAIN
) -> Scene:
    """The scene of a seed; `aspect` is width / height of its pictures."""
    rng = np.random.default_rng(seed)
    types = vocabulary.scene_types
    scene_type = types[rng.choice(len(types), p=vocabulary.type_odds)]
    count = min(rng.integers(*_NUM_GROUNDS, endpoint=True), len(scene_type.grounds))
    chosen = rng.choice(scene_type.grounds, count, replace=False, p=scene_type.ground_odds)
    grounds = [_make_ground(rng, vocabulary, category, aspect, style) for category in chosen]
    count = rng.integers(*style.num_things, endpoint=True)
    chosen = rng.choice(scene_type.things, count, p=scene_type.thing_odds)
    things = []
    for category in chosen:
        center = rng.uniform(0, (aspect, 1))
        if things and rng.random() < CROWDING:
            center = things[-1].center + rng.normal(0, CROWD_SPREAD, 2)
        things.append(_make_thing(rng, vocabulary, category, center, style))
    return Scene(
        seed,
        vocabulary,
        style,
        tuple(grounds),
        tuple(things),
        camera=rng.normal(0, CAMERA_SPEED, 2),
        wave=rng.uniform((0.02, 3, 0), (0.08, 9, 2 * np.pi)),
        light=rng.normal((1, 0, 0), (0.08, 0.12, 0.12)),
    )


def _make_ground(rng, vocabulary, category, aspect, style: Style) -> Ground:
    kind = vocabulary.categories[category]
    tones = np.array([COLORS[kind.color], GROUNDS[kind.form]], np.float32)
    tones[0] = 0.5 * tones[0] + 0.5 * tones.mean()  # faded, and with less contrast than things
    tones[1] = 0.4 * tones[0] + 0.6 * tones[1]
    return Ground(
        category=int(category),
        tones=_vary(rng, tones, style),
        angle=rng.uniform(0, 2 * np.pi),
        period=rng.uniform(0.09, 0.14),
        anchor=rng.uniform(0, (aspect, 1)),
    )


def _make_thing(rng, vocabulary, category, center: np.ndarray, style: Style) -> Thing:
    tone = np.array(COLORS[vocabulary.categories[category].color], np.float32)
    second = 0.45 * tone if tone.mean() > 90 else 0.5 * tone + 100
    radius = rng.uniform(*style.radii)
    return Thing(
        category=int(category),
        tones=_vary(rng, np.stack([tone, second]), style),
        angle=rng.uniform(0, 2 * np.pi),
        period=max(0.55 * radius, 0.065),
        center=center,
        velocity=rng.normal(0, SPEED, 2),
        radius=radius,
        spin=rng.normal(0, SPIN),
    )


def _vary(rng, tones: np.ndarray, style: Style) -> np.ndarray:
    """The same random change to both tones."""
    return tones + rng.normal(0, style.tone_noise, 3).astype(np.float32)


def draw(scene: Scene, height: int, width: int, time: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """RGB picture (H, W, 3) uint8, and the number of the ground or thing at each pixel (H, W).

    Grounds are numbered first, then things.
    """
    x, y = pixel_centers(height, width)
    picture, numbers = _draw_grounds(scene, x + scene.camera[0] * time, y + scene.camera[1] * time)
    for number, thing in enumerate(scene.things, len(scene.grounds)):
        _draw_thing(picture, numbers, number, thing, scene.vocabulary, height, time)
    seed = [*scene.seed, round(1000 * time)]
    return photograph(picture, scene.light, scene.style.pixel_noise, seed), numbers


def _draw_grounds(scene: Scene, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = nearest_ground([ground.anchor for ground in scene.grounds], scene.wave, x, y)
    picture = np.empty((*numbers.shape, 3), np.float32)
    for number, ground in enumerate(scene.grounds):
        inside = numbers == number
        category = scene.vocabulary.categories[ground.category]
        u, v = _turn(x[inside] - ground.anchor[0], y[inside] - ground.anchor[1], ground.angle)
        picture[inside] = _painted(ground, category, u, v)
    return picture, numbers


def _draw_thing(picture, numbers, number, thing: Thing, vocabulary, height, time) -> None:
    """Draw a thing over the picture, inside the square around it."""
    category = vocabulary.categories[thing.category]
    cx, cy = thing.center + thing.velocity * time
    low = [max(0, int((c - thing.radius) * height)) for c in (cy, cx)]
    high = [max(0, int((c + thing.radius) * height) + 2) for c in (cy, cx)]
    rows, columns = map(slice, low, high)
    part = numbers[rows, columns]
    if not part.size:
        return
    y, x = np.ogrid[: part.shape[0], : part.shape[1]]
    x = ((x + columns.start + 0.5) / height - cx).astype(np.float32)
    y = ((y + rows.start + 0.5) / height - cy).astype(np.float32)
    u, v = _turn(x, y, thing.angle + thing.spin * time)
    inside = SHAPES[category.form](u / thing.radius, v / thing.radius)
    part[inside] = number
    picture[rows, columns][inside] = _painted(thing, category, u[inside], v[inside])


def _turn(x, y, angle: float):
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _painted(paint: Paint, category: Category, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of points (N,) given in the axes of the thing or ground."""
    weight = TEXTURES[category.texture](u / paint.period, v / paint.period)[:, None]
    return paint.tones[0] * (1 - weight) + paint.tones[1] * weight
