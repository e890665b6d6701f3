"""The categories of `shapes`, and which of them occur together."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from ..drawn.layout import SceneType, Vocabulary, long_tail
from .patterns import COLORS, GROUNDS, SHAPES, TEXTURES

MIN_CATEGORIES, MAX_CATEGORIES = 10, 2000
_THING_SHARE = 0.7  # of the categories; the others are stuff
OWN_THINGS, MORE_THINGS = 7, 5  # of a scene type: its own, and those of other types
_MORE_GROUNDS = 2
SEED = 2022


@dataclass(frozen=True)
class Category:
    """A shape (thing) or ground (stuff) with a colour and a texture."""

    name: str
    form: str  # of SHAPES for things, of GROUNDS for stuff
    color: str
    texture: str
    is_thing: bool

    @property
    def supercategory(self) -> str:
        return self.form


@functools.lru_cache(maxsize=8)
def make_vocabulary(num_categories: int) -> Vocabulary:
    """The vocabulary of a number of categories; the same in every call."""
    check_num_categories(num_categories)
    rng = np.random.default_rng([SEED, num_categories])
    num_things = round(_THING_SHARE * num_categories)
    things = _choose(rng, num_things, SHAPES, is_thing=True)
    grounds = _choose(rng, num_categories - num_things, GROUNDS, is_thing=False)
    types = _scene_types(rng, num_things, num_categories)
    return Vocabulary((*things, *grounds), num_things, tuple(types), long_tail(len(types), 0.7))


def check_num_categories(num_categories: int) -> None:
    """Raise ValueError for a number of categories that `shapes` does not support."""
    if not MIN_CATEGORIES <= num_categories <= MAX_CATEGORIES:
        raise ValueError(
            f"shapes must have {MIN_CATEGORIES} to {MAX_CATEGORIES} categories, got "
            f"{num_categories}; the number is in the data set's name, such as "
            "shapes1000_panoptic_train"
        )


def _choose(rng, count: int, forms: dict, is_thing: bool) -> list[Category]:
    """`count` combinations of few forms, colours and textures, so that categories are similar."""
    names = [list(forms), list(COLORS), list(TEXTURES)]
    sizes = [2, 2, 2]
    while np.prod(sizes) < count:  # extend the attribute with the smallest used share
        shares = [size / len(options) for size, options in zip(sizes, names, strict=True)]
        sizes[int(np.argmin(shares))] += 1
    used = [options[:size] for options, size in zip(names, sizes, strict=True)]
    combinations = list(itertools.product(*used))
    return [
        Category(f"{color} {texture} {form}", form, color, texture, is_thing)
        for form, color, texture in (
            combinations[i] for i in rng.permutation(len(combinations))[:count]
        )
    ]


def _scene_types(rng, num_things: int, num_categories: int) -> list[SceneType]:
    """Scene types; each category belongs to one of them and is a guest in some others."""
    count = max(2, num_things // OWN_THINGS)
    types = []
    for things, grounds in zip(
        np.array_split(rng.permutation(num_things), count),
        np.array_split(rng.permutation(np.arange(num_things, num_categories)), count),
        strict=True,
    ):
        things = _with_guests(rng, things, 0, num_things, MORE_THINGS)
        grounds = _with_guests(rng, grounds, num_things, num_categories, _MORE_GROUNDS)
        odds = long_tail(len(things), 1.0), long_tail(len(grounds), 0.5)
        types.append(SceneType(things, grounds, *odds))
    return types


def _with_guests(rng, own: np.ndarray, start: int, stop: int, count: int) -> np.ndarray:
    """`own` and up to `count` other categories, at most half of the others."""
    others = np.setdiff1d(np.arange(start, stop), own)
    guests = rng.permutation(others)[: min(count, (len(others) + 1) // 2)]
    return rng.permutation(np.concatenate([own, guests]))
