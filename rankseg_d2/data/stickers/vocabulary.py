"""The categories of `stickers`, and which of them occur together."""

import functools
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from ...files import read_json
from ..drawn.layout import SceneType, Vocabulary, long_tail

MIN_CATEGORIES, MAX_CATEGORIES = 20, 1000
GROUNDS = (
    "sky", "background", "brick wall", "grass", "sand", "water", "snow", "road", "planks", "tiles",
)  # fmt: skip
# Sub-group, or else group -> the grounds on which its scenes are mostly.
_GROUNDS_OF = {
    "animal-bird": ("sky", "grass"),
    "animal-marine": ("water", "sand"),
    "animal-mammal": ("grass", "snow"),
    "transport-water": ("water", "sky"),
    "transport-air": ("sky", "road"),
    "transport-ground": ("road", "grass"),
    "sky-weather": ("sky", "snow"),
    "sport": ("grass", "snow"),
    "Animals & Nature": ("grass", "sand"),
    "Food & Drink": ("planks", "tiles"),
    "Travel & Places": ("grass", "road"),
    "Activities": ("planks", "grass"),
    "Objects": ("tiles", "planks"),
    "People & Body": ("brick wall", "road"),
    "Smileys & Emotion": ("background", "brick wall"),
    "Symbols": ("brick wall", "background"),
}
_FEWEST, _MOST = 4, 8  # own things of a scene type
_NEAR_GUESTS, _FAR_GUESTS = 3, 2  # of a scene type: from its group, from anywhere
SEED = 2022


@dataclass(frozen=True)
class Category:
    """A sticker (thing) or a ground (stuff)."""

    name: str
    supercategory: str  # the sub-group of a sticker
    is_thing: bool
    code_point: int = 0


@functools.lru_cache(maxsize=8)
def make_vocabulary(num_categories: int) -> Vocabulary:
    """The vocabulary of a number of categories; the same in every call."""
    if not MIN_CATEGORIES <= num_categories <= MAX_CATEGORIES:
        raise ValueError(
            f"stickers must have {MIN_CATEGORIES} to {MAX_CATEGORIES} categories, got "
            f"{num_categories}; the number is in the data set's name, such as "
            "stickers300_panoptic_train"
        )
    table = emoji_table()
    num_things = num_categories - len(GROUNDS)
    things = [
        Category(name, sub_group, True, int(code, 16))
        for code, name, sub_group in table["emoji"][:num_things]
    ]
    grounds = [Category(name, "ground", False) for name in GROUNDS]
    rng = np.random.default_rng([SEED, num_categories])
    types = _scene_types(rng, [thing.supercategory for thing in things], table["groups"])
    return Vocabulary((*things, *grounds), num_things, tuple(types), long_tail(len(types), 0.5))


@functools.cache
def emoji_table() -> dict:
    """`groups`: sub-group -> group; `emoji`: rows of code point, name, sub-group."""
    return read_json(Path(__file__).with_name("emoji.json"))


def _scene_types(rng, sub_groups: list[str], groups: dict[str, str]) -> list[SceneType]:
    """Scene types of stickers that go together; each sticker belongs to one, and visits others.

    sub_groups: of each sticker.
    """
    group_of = np.array([groups[name] for name in sub_groups])
    types = []
    for own in _parts(rng, sub_groups, groups):
        group = group_of[own[0]]
        near = np.setdiff1d(np.flatnonzero(group_of == group), own)
        far = np.setdiff1d(np.arange(len(sub_groups)), np.concatenate([own, near]))
        guests = [rng.permutation(near)[:_NEAR_GUESTS], rng.permutation(far)[:_FAR_GUESTS]]
        things = rng.permutation(np.concatenate([own, *guests]))
        liked = _GROUNDS_OF.get(sub_groups[own[0]]) or _GROUNDS_OF[group]
        names = dict.fromkeys([*liked, "background", *rng.permutation(GROUNDS).tolist()])
        grounds = np.array([len(sub_groups) + GROUNDS.index(name) for name in names])
        odds = long_tail(len(things), 0.7), long_tail(len(grounds), 1.5)
        types.append(SceneType(things, grounds, *odds))
    return [types[index] for index in rng.permutation(len(types))]


def _parts(rng, sub_groups: list[str], groups: dict[str, str]) -> list[np.ndarray]:
    """Disjoint sets of stickers: parts of large sub-groups, and small ones of a group together."""
    order = sorted(range(len(sub_groups)), key=lambda i: (groups[sub_groups[i]], sub_groups[i]))
    parts, small = [], []
    for _, of_group in groupby(order, key=lambda i: groups[sub_groups[i]]):
        for _, of_sub_group in groupby(of_group, key=lambda i: sub_groups[i]):
            small += of_sub_group
            if len(small) >= _FEWEST:
                parts += np.array_split(rng.permutation(small), -(-len(small) // _MOST))
                small = []
        if small:
            parts.append(np.array(small))
            small = []
    return parts
