"""What the scenes of drawn data sets have in common. Lengths are in image heights."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SceneType:
    """The categories of one kind of scene, most probable first, and their probabilities."""

    things: np.ndarray
    grounds: np.ndarray
    thing_odds: np.ndarray
    ground_odds: np.ndarray


@dataclass(frozen=True)
class Vocabulary:
    """All categories (things, then stuff), and the scene types with their probabilities."""

    categories: tuple[Any, ...]  # each with name, supercategory, is_thing
    num_things: int
    scene_types: tuple[SceneType, ...]
    type_odds: np.ndarray


def long_tail(count: int, exponent: float) -> np.ndarray:
    """Probabilities that decrease with the rank (Zipf's law)."""
    odds = np.arange(1, count + 1) ** -exponent
    return odds / odds.sum()


def pixel_centers(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel, (H, W) each."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (x + 0.5) / height, (y + 0.5) / height


def nearest_ground(
    anchors: list[np.ndarray], wave: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """The number of the nearest anchor (x, y) at each point; borders are wavy.

    wave: amplitude, frequency, phase.
    """
    amplitude, frequency, phase = wave.astype(np.float32)
    wavy_x = x + amplitude * np.sin(frequency * y + phase)
    wavy_y = y + amplitude * np.sin(frequency * x - phase)
    distances = [(wavy_x - ax) ** 2 + (wavy_y - ay) ** 2 for ax, ay in np.float32(anchors)]
    return np.argmin(distances, axis=0).astype(np.int32)


def photograph(
    picture: np.ndarray, light: np.ndarray, noise: float, seed: list[int]
) -> np.ndarray:
    """The picture (H, W, 3) float32 in a light, with noise of a standard deviation, as uint8.

    light: brightness, and its gradient along x and y.
    """
    height, width = picture.shape[:2]
    x, y = pixel_centers(height, width)
    brightness = light[0] + light[1] * (x - x.mean()) + light[2] * (y - 0.5)
    picture = picture * brightness[..., None].astype(np.float32)
    rng = np.random.default_rng(seed)
    picture += noise * rng.standard_normal(picture.shape, np.float32)
    return picture.clip(0, 255).astype(np.uint8)
