"""Labels lie in their regions, inside the picture, and never on each other."""

import cv2
import numpy as np
import pytest

from rankseg_d2.drawing.labels import Label, _widest, place_labels
from rankseg_d2.drawing.text import line_height


def place(index, names, size=12):
    return place_labels(index, lambda number: [names[number - 1]], size)


def regions(seed, height, width, count):
    """A map with `count` smooth regions."""
    random = np.random.default_rng(seed)
    small = random.random((count, 5, 6)).astype(np.float32)
    return np.argmax([cv2.resize(s, (width, height), interpolation=3) for s in small], 0) + 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(64, 64), (240, 320), (700, 1300), (90, 900)])
def test_labels_never_meet_and_lie_in_the_picture(seed, shape):
    names = [f"name {i} {'x' * (i % 12)}" for i in range(25)]
    index = regions(seed, *shape, 25)
    found = place(index, names)
    for number, label in enumerate(found):
        assert 0 <= label.x <= shape[1] - label.width
        assert 0 <= label.y <= shape[0] - label.height
        assert not any(label.meets(other) for other in found[:number])
        area = index[label.y : label.y + label.height, label.x : label.x + label.width]
        assert (area == names.index(label.text) + 1).mean() > 0.4
    assert len({label.text for label in found}) == len(found)
    assert found or min(shape) < 100


def test_labels_do_not_meet_at_the_border_or_by_rounding():
    """Maps in which they would, if each label only had a spot of its own."""
    random = np.random.default_rng(1)
    for seed in range(120):
        height, width = random.integers(16, 500, 2)
        count, size = int(random.integers(20, 60)), int(random.integers(9, 26))
        names = [("xy " * 9)[: random.integers(1, 20)] for _ in range(count)]
        found = place(regions(seed, height, width, count), names, size)
        for number, label in enumerate(found):
            assert not any(label.meets(other) for other in found[:number])


def test_meeting_is_what_shared_pixels_are():
    random = np.random.default_rng(0)
    for _ in range(200):
        pair = [Label("", *random.integers(0, 8, 2), *random.integers(1, 6, 2)) for _ in range(2)]
        maps = np.zeros((2, 20, 20), bool)
        for map_, label in zip(maps, pair, strict=True):
            map_[label.y : label.y + label.height, label.x : label.x + label.width] = True
        assert pair[0].meets(pair[1]) == maps.all(0).any()


def test_the_widest_spot_is_that_of_all_rectangles():
    """Against a search through all rectangles of the aspect."""
    for seed in range(10):
        mask = (regions(seed, 30, 40, 3) == 1).astype(np.uint8)
        if not mask.any():
            continue
        _, _, side = _widest(mask, 1)
        sums = cv2.integral(mask)
        sides = [
            s for s in range(1, 31)
            if (sums[s:, s:] - sums[s:, :-s] - sums[:-s, s:] + sums[:-s, :-s] == s * s).any()
        ]  # fmt: skip
        assert sides[-1] - 1 <= side <= sides[-1]  # the distance transform knows odd sides


def test_a_wide_region_is_labelled_in_its_middle():
    index = np.zeros((200, 400), np.uint8)
    index[60:140, 100:360] = 1
    (label,) = place(index, ["wall"])
    assert abs(label.x + label.width / 2 - 230) < 6
    assert abs(label.y + label.height / 2 - 100) < 6


def test_where_it_does_not_fit_nothing_is_written():
    index = np.zeros((200, 200), np.uint8)
    index[::2, ::2] = 1  # no spot is wide
    index[100:108, 20:180] = 2  # lower than the letters
    index[150:180, 190:] = 3  # narrower than the name
    assert [label for label in place(index, ["a", "b", "a long name"]) if label.text != "a"] == []
    assert place(np.ones((10, 200), np.uint8), ["too high"]) == []
    assert place(np.ones((100, 20), np.uint8), ["too wide for it"]) == []
    assert place(np.zeros((50, 50), np.uint8), []) == []
    assert place(np.ones((99, 99), np.uint8), [" "]) == []


def test_the_shorter_name_is_taken_where_only_it_fits():
    index = np.zeros((100, 200), np.uint8)
    index[20:80, 20:100] = 1
    texts = ["building, edifice, house, skyscraper", "building"]
    (label,) = place_labels(index, lambda number: texts, 12)
    assert label.text == "building"
    index[:] = 1
    assert place_labels(np.ones((100, 400), int), lambda number: texts, 12)[0].text == texts[0]


def test_regions_that_touch_the_border_keep_their_label_inside():
    index = np.zeros((100, 200), np.uint8)
    index[: line_height(12) - 2, 120:] = 1
    (label,) = place(index, ["edge"])
    assert label.y == 0
