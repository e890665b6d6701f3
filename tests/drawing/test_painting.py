"""Label maps of any type become positions and colours; edges lie between ids."""

import numpy as np
import pytest

from rankseg_d2.drawing import edges_of, hatch, label_picture
from rankseg_d2.drawing.painting import paint_by, positions, rgb

KINDS = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64]


def slow_positions(values, known):
    table = {int(number): place for place, number in enumerate(known, 1)}
    return [[table.get(int(value), 0) for value in row] for row in values]


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_those_of_a_dictionary(kind):
    random, info = np.random.default_rng(0), np.iinfo(kind)
    for low, high in ((0, 20), (info.min, info.min + 30), (info.max - 30, info.max), (0, info.max)):
        if high > 2**62 and low:  # not among int64
            continue
        values = random.integers(low, high, (9, 11), dtype=kind, endpoint=True)
        values[0, 0] = high
        known = np.unique(values[:4]).astype(np.int64, casting="unsafe")
        known = random.permutation(known[known >= 0] if info.min == 0 else known)
        assert positions(values, known).tolist() == slow_positions(values, known)


def test_positions_of_nothing():
    assert positions(np.zeros((0, 3), int), [1]).shape == (0, 3)
    assert positions(np.ones((2, 2), int), []).tolist() == [[0, 0], [0, 0]]
    assert positions(np.array([[True, False]]), [1]).tolist() == [[1, 0]]


@pytest.mark.parametrize("count", [3, 255, 256, 65535, 65536, 70000])
def test_many_classes_do_not_wrap_around(count):
    values = np.array([[0, count - 1, count, -1, 65536, 256, 255]])
    expected = [v + 1 if 0 <= v < count else 0 for v in values[0].tolist()]
    assert positions(values, range(count))[0].tolist() == expected
    colors = np.random.default_rng(0).integers(1, 256, (count, 3), dtype=np.uint8)
    picture = label_picture(values, colors)
    for value, color in zip(values[0], picture[0], strict=True):
        assert color.tolist() == (colors[value].tolist() if 0 <= value < count else [0, 0, 0])


def test_colours_come_from_the_table():
    index = np.random.default_rng(0).integers(0, 7, (5, 6), dtype=np.uint16)
    table = np.random.default_rng(1).integers(0, 256, (7, 3), dtype=np.uint8)
    assert np.array_equal(paint_by(index, table), table[index])


def test_edges_are_between_segments():
    edges = edges_of(np.array([[7, 7, 0], [7, 7, 0], [9, 9, 9]]))
    assert edges.tolist() == [[False, False, True]] * 2 + [[True] * 3]
    assert not edges_of(np.zeros((2, 2), int)).any()


def test_pictures_of_every_form_become_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for picture in (grey, grey[..., None]):
        assert np.array_equal(rgb(picture), np.stack([grey] * 3, -1))
    color = np.zeros((2, 3, 3), np.uint8)
    assert rgb(color) is color


@pytest.mark.parametrize(
    "picture", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2)), np.zeros((0, 5, 3), np.uint8), [1]]
)
def test_other_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="a picture must be"):
        rgb(picture)


def test_hatching_covers_the_given_pixels_and_no_others():
    before = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    where = np.zeros((30, 40), bool)
    where[5:25, 10:35] = True
    picture = before.copy()
    hatch(picture, where)
    assert np.array_equal(picture[~where], before[~where])
    plain = np.full_like(before, 250)
    hatch(plain, where)
    light, dark = sorted({tuple(color) for color in plain[where].tolist()}, reverse=True)
    assert light[0] - dark[0] > 60
    # Bright pixels stay brighter than dark ones: the image shows through.
    values = np.stack([before.mean(-1)[where], picture.mean(-1)[where]])
    assert np.corrcoef(values[:, plain[where][:, 0] == light[0]])[0, 1] > 0.99
    hatch(picture[:0], where[:0])
