"""The categories of `stickers`: the table, and which of them occur together."""

import unicodedata

import numpy as np
import pytest

from rankseg_d2.data.stickers.grounds import APPEARANCES
from rankseg_d2.data.stickers.vocabulary import GROUNDS, emoji_table, make_vocabulary


def test_the_table_has_distinct_characters_with_names_and_groups():
    table = emoji_table()
    codes, names, sub_groups = zip(*table["emoji"], strict=True)
    assert len(set(codes)) == len(set(names)) == len(codes) == 1000 - len(GROUNDS)
    assert set(sub_groups) == set(table["groups"])
    for code in codes:
        assert code == f"{int(code, 16):x}"
        assert unicodedata.category(chr(int(code, 16))) in ("So", "Po", "Sm")
    assert not set(names) & set(GROUNDS)
    by_code = dict(zip(codes, names, strict=True))
    assert (by_code["1f34e"], by_code["1f418"]) == ("red apple", "elephant")
    assert "Unicode License" in table["source"]


def test_every_ground_has_an_appearance():
    assert sorted(APPEARANCES) == sorted(GROUNDS)


@pytest.mark.parametrize("num_categories", [20, 100, 300, 1000])
def test_every_category_occurs_and_stickers_of_a_scene_go_together(num_categories):
    vocabulary = make_vocabulary(num_categories)
    kinds = vocabulary.categories
    assert len({kind.name for kind in kinds}) == num_categories
    assert [kind.is_thing for kind in kinds] == [True] * (num_categories - 10) + [False] * 10
    assert [kind.name for kind in kinds[:90]] == [
        kind.name for kind in make_vocabulary(1000).categories[: min(90, num_categories - 10)]
    ] + [kind.name for kind in kinds[num_categories - 10 : 90]]
    groups = emoji_table()["groups"]
    shares = []
    for scene_type in vocabulary.scene_types:
        assert len(set(scene_type.things)) == len(scene_type.things) <= 13
        assert scene_type.thing_odds.sum() == pytest.approx(1)
        assert set(scene_type.grounds) == set(range(num_categories - 10, num_categories))
        of_scene = [groups[kinds[i].supercategory] for i in scene_type.things]
        shares.append(max(map(of_scene.count, of_scene)) / len(of_scene))
    assert np.mean(shares) > 0.6
    together = np.concatenate([kind.things for kind in vocabulary.scene_types])
    assert set(together) == set(range(num_categories - 10))


@pytest.mark.parametrize("number", [19, 1001, 0])
def test_other_numbers_of_categories_are_refused(number):
    with pytest.raises(ValueError, match=f"20 to 1000 categories, got {number};"):
        make_vocabulary(number)
