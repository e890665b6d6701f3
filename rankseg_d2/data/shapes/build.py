"""The splits of `shapes`: what determines their files, and what these show."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..drawn.images import ImageSpec
from ..drawn.layout import Vocabulary
from ..drawn.videos import VideoSpec
from .scene import HARD, PLAIN, Scene, draw, make_scene
from .vocabulary import make_vocabulary

VERSION = 2  # of drawing and files: splits of another version are made again


class _Shapes:
    name: ClassVar[str] = "shapes"

    @property
    def vocabulary(self) -> Vocabulary:
        return make_vocabulary(self.num_categories)

    def make_scene(self, seed: tuple[int, ...]) -> Scene:
        style = HARD if self.hard else PLAIN
        return make_scene(self.vocabulary, seed, self.width / self.height, style)

    def draw(self, scene: Scene, time: float = 0) -> tuple[np.ndarray, np.ndarray]:
        return draw(scene, self.height, self.width, time)


@dataclass(frozen=True)
class Spec(_Shapes, ImageSpec):
    """A split of images."""

    hard: bool = False
    height: int = 96
    width: int = 128
    version: int = VERSION


@dataclass(frozen=True)
class ClipSpec(_Shapes, VideoSpec):
    """A split of videos."""

    hard: bool = False
    shortest: int = 8
    longest: int = 24
    height: int = 96
    width: int = 128
    version: int = VERSION
