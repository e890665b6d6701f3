"""Scenes of `stickers`: emoji and grounds with positions and velocities; their pictures.

Lengths are in image heights, times in frames. The seed determines the scene; scene, time and the
pictures of emoji determine the picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..drawn.layout import Vocabulary, nearest_ground, photograph, pixel_centers
from .grounds import APPEARANCES, paint_ground, paint_photo
from .vocabulary import GROUNDS

_NUM_THINGS = (3, 9)  # fewest and most in a scene
_SECOND_GROUND = 0.5  # probability
_RADII = (0.1, 0.27)
_CROWDING, _CROWD_SPREAD = 0.4, 0.18  # probability that a thing is near the one before; distance
_ANGLE = 0.4  # standard deviation
_SPEED, _SPIN, _CAMERA_SPEED = 0.018, 0.05, 0.005  # standard deviations, per frame
_PIXEL_NOISE = 4  # standard deviation, of 255


@dataclass(frozen=True)
class Sticker:
    category: int
    center: np.ndarray  # (x, y)
    velocity: np.ndarray
    radius: float  # half of the longer side
    angle: float
    spin: float
    tint: np.ndarray  # factors of R, G, B


@dataclass(frozen=True)
class Ground:
    category: int
    anchor: np.ndarray  # (x, y): the ground covers the points whose nearest anchor this is
    tones: np.ndarray  # (2, 3)
    scale: float
    photo: float  # which photo a background shows, as a share of their number


@dataclass(frozen=True)
class Scene:
    """Grounds, and stickers in front of them, from back to front."""

    seed: tuple[int, ...]
    vocabulary: Vocabulary
    grounds: tuple[Ground, ...]
    things: tuple[Sticker, ...]
    camera: np.ndarray  # velocity (x, y)
    wave: np.ndarray  # of the border between grounds: amplitude, frequency, phase
    light: np.ndarray  # brightness, and its gradient along x and y


def make_scene(vocabulary: Vocabulary, seed: tuple[int, ...], aspect: float) -> Scene:
    """The scene of a seed; `aspect` is width / height of its pictures."""
    rng = np.random.default_rng(seed)
    types = vocabulary.scene_types
    scene_type = types[rng.choice(len(types), p=vocabulary.type_odds)]
    count = 1 + (rng.random() < _SECOND_GROUND)
    # The sky is above, walls are next: grounds come in the order of their categories.
    kinds = np.sort(rng.choice(scene_type.grounds, count, False, scene_type.ground_odds))
    heights = np.sort(rng.uniform(0, 1, count))
    grounds = [
        _make_ground(rng, int(kind), vocabulary.num_things, (rng.uniform(0, aspect), height))
        for kind, height in zip(kinds, heights, strict=True)
    ]
    things = []
    for category in rng.choice(
        scene_type.things, rng.integers(*_NUM_THINGS, endpoint=True), p=scene_type.thing_odds
    ):
        center = rng.uniform(0.1, (aspect - 0.1, 0.9))
        if things and rng.random() < _CROWDING:
            center = things[-1].center + rng.normal(0, _CROWD_SPREAD, 2)
        things.append(_make_sticker(rng, int(category), center))
    return Scene(
        seed,
        vocabulary,
        tuple(grounds),
        tuple(things),
        camera=rng.normal(0, _CAMERA_SPEED, 2),
        wave=rng.uniform((0.01, 3, 0), (0.05, 9, 2 * np.pi)),
        light=rng.normal((1, 0, 0), (0.07, 0.1, 0.1)),
    )


def _make_ground(rng, category: int, num_things: int, anchor: tuple[float, float]) -> Ground:
    name = GROUNDS[category - num_things]
    tones = np.float32(APPEARANCES[name][:2]) + rng.normal(0, 10, 3)
    if name == "background":
        tones = rng.uniform(60, 230, (2, 3))
    return Ground(
        category, np.array(anchor), np.float32(tones), rng.uniform(0.8, 1.3), rng.random()
    )


def _make_sticker(rng, category: int, center: np.ndarray) -> Sticker:
    return Sticker(
        category,
        center,
        velocity=rng.normal(0, _SPEED, 2),
        radius=rng.uniform(*_RADII),
        angle=rng.normal(0, _ANGLE),
        spin=rng.normal(0, _SPIN),
        tint=np.float32(rng.normal(1, 0.08) + rng.normal(0, 0.04, 3)),
    )


def draw(
    scene: Scene,
    stickers: list[list[np.ndarray]],
    photos: list[np.ndarray],
    size: tuple[int, int],
    time: float = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """RGB picture (H, W, 3) uint8, and the number of the ground or sticker at each pixel (H, W).

    Grounds are numbered first, then stickers.

    Args:
        stickers: of each sticker's category, its picture at several sizes (`load_stickers`).
        photos: backgrounds; where there are none, a background is drawn.
        size: height, width.
    """
    x, y = pixel_centers(*size)
    x, y = x + scene.camera[0] * time, y + scene.camera[1] * time
    numbers = nearest_ground([ground.anchor for ground in scene.grounds], scene.wave, x, y)
    picture = np.empty((*size, 3), np.float32)
    for number, ground in enumerate(scene.grounds):
        painted = _painted(ground, scene.vocabulary, photos, x, y)
        np.copyto(picture, painted, where=(numbers == number)[..., None])
    for number, thing in enumerate(scene.things, len(scene.grounds)):
        _paste(picture, numbers, number, thing, stickers[thing.category], time)
    seed = [*scene.seed, round(1000 * time)]
    return photograph(picture, scene.light, _PIXEL_NOISE, seed), numbers


def _painted(ground: Ground, vocabulary: Vocabulary, photos, x, y) -> np.ndarray:
    u, v = (x - ground.anchor[0]) / ground.scale, (y - ground.anchor[1]) / ground.scale
    name = vocabulary.categories[ground.category].name
    if photos and name == "background":
        return paint_photo(photos[int(ground.photo * len(photos))], u, v)
    return paint_ground(name, ground.tones, u, v)


def _paste(picture, numbers, number: int, thing: Sticker, levels: list, time: float) -> None:
    """Draw a sticker over the picture, inside the square around it."""
    height = picture.shape[0]
    center = (thing.center + thing.velocity * time) * height
    reach = np.sqrt(2) * thing.radius * height + 1
    left, top = np.maximum(0, np.floor(center - reach)).astype(int)
    right, bottom = np.ceil(center + reach).astype(int)
    part = numbers[top : max(0, bottom), left : max(0, right)]
    if not part.size:
        return
    side = 2 * thing.radius * height
    level = [level for level in levels if len(level) >= side or level is levels[0]][-1]
    scale = side / len(level)
    angle = thing.angle + thing.spin * time
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Indices of pixels are of their centres, in the sticker's picture and in the part.
    shift = center - (left, top) - 0.5 - turn @ np.full(2, (len(level) - 1) / 2)
    matrix = np.concatenate([turn, shift[:, None]], 1)
    pasted = cv2.warpAffine(level, matrix, part.shape[::-1], flags=cv2.INTER_LINEAR)
    alpha = pasted[..., 3:]
    region = picture[top : top + part.shape[0], left : left + part.shape[1]]
    region *= 1 - alpha
    region += pasted[..., :3] * thing.tint
    part[alpha[..., 0] > 0.5] = number
