"""What holds for all masks, label tables and run lengths, drawn by hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from rankseg_d2.data.formats import rle
from rankseg_d2.data.formats.label_images import positions_of_ids, present_values, to_classes
from rankseg_d2.data.formats.mask_checks import mask_faults
from rankseg_d2.data.formats.painting import paint, paint_segments
from rankseg_d2.data.mappers.packed_masks import pack, packed_masks
from rankseg_d2.ops.rle import rle_overlaps, why_not

properties = settings(max_examples=80, deadline=None, derandomize=True, database=None)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def masks(draw, least=0, most=19):
    """Masks (N, H, W) that overlap, or do not."""
    height, width = draw(SIZES)
    count = draw(st.integers(least, most))
    if draw(st.booleans()):
        ids = draw(arrays(np.int64, (height, width), elements=st.integers(0, count)))
        return ids == np.arange(1, count + 1)[:, None, None]
    return draw(arrays(bool, (count, height, width)))


@properties
@given(masks())
def test_packed_masks_are_the_masks(array):
    count, size = len(array), array.shape[1:]
    pieces = []
    for mask in array:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = (int(x[0]) if len(x) else 0 for x in (rows, columns))
        bottom, right = (int(x[-1]) + 1 if len(x) else 0 for x in (rows, columns))
        pieces.append((top, left, np.ascontiguousarray(mask[top:bottom, left:right])))
    packed = packed_masks(pack(pieces, size), count)
    np.testing.assert_array_equal(packed.tensor.numpy(), array)
    assert packed.nonempty().tolist() == array.any((1, 2)).tolist()
    boxes = packed.get_bounding_boxes().tensor.tolist()
    for (top, left, mask), box in zip(pieces, boxes, strict=True):
        assert box == [left, top, left + mask.shape[1], top + mask.shape[0]]
    some = np.arange(count)[::-2].copy()
    np.testing.assert_array_equal(packed[some].tensor.numpy(), array[some])


@properties
@given(masks(), st.data())
def test_of_painted_masks_the_last_one_wins(array, data):
    values = data.draw(st.lists(st.integers(1, 99), min_size=len(array), max_size=len(array)))
    painted = paint(array, values, np.zeros(array.shape[1:], np.int64))
    for y, x in np.ndindex(painted.shape):
        above = [value for mask, value in zip(array, values, strict=True) if mask[y, x]]
        assert painted[y, x] == (above[-1] if above else 0)


@properties
@given(
    arrays(np.uint32, SIZES, elements=st.integers(0, 6) | st.integers(2**24 - 3, 2**24 - 1)),
    st.lists(st.integers(0, 9) | st.just(2**24 - 1), unique=True),
    st.data(),
)
def test_segments_are_numbered_and_painted_one_by_one(ids, wanted, data):
    numbers = positions_of_ids(ids, wanted)
    place = {value: i for i, value in enumerate(wanted, 1)}
    expected = [place.get(value, 0) for value in ids.ravel().tolist()]
    assert numbers.ravel().tolist() == expected
    assert present_values(ids).tolist() == sorted(set(ids.ravel().tolist()))
    count = len(wanted)
    categories = data.draw(st.lists(st.integers(0, 900), min_size=count, max_size=count))
    painted = paint_segments(numbers, categories, 65535)
    assert painted.ravel().tolist() == [[65535, *categories][number] for number in expected]


@properties
@given(
    st.lists(st.sampled_from([-1, 0, 1, 2, 255, 1000]), min_size=1, max_size=9),
    arrays(np.uint16, SIZES, elements=st.integers(0, 10)),
    st.booleans(),
)
def test_a_label_table_maps_each_value_or_refuses_it(table, values, ignores_unknown):
    metadata = {"label_table": table, "unknown_is_ignored": ignores_unknown, "name": "drawn"}
    metadata |= {"ignore_label": 255, "stuff_classes": ["x"] * 1001}
    flat = values.ravel().tolist()
    expected = [table[value] if value < len(table) else -1 for value in flat]
    if -1 in expected and not ignores_unknown:
        with pytest.raises(ValueError, match="which is no class"):
            to_classes(values, "a.png", metadata)
        return
    found = to_classes(values, "a.png", metadata)
    assert found.shape == values.shape
    assert found.ravel().tolist() == [255 if value == -1 else value for value in expected]


@properties
@given(masks(1))
def test_run_lengths_are_pycocotools(array):
    theirs = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in array]
    ours = rle.encode_each(array)
    assert ours == theirs
    size = array.shape[1:]
    assert mask_faults([*ours, *map(rle.as_text, ours)], [size] * (2 * len(ours))) == {}
    np.testing.assert_array_equal(np.array([rle.decode(one) for one in ours]), array)
    if why_not() is None:
        pairs = np.stack(np.meshgrid(*[np.arange(len(array))] * 2), -1).reshape(-1, 2)
        areas, common = rle_overlaps([one["counts"] for one in ours], pairs)
        assert areas.tolist() == coco.area(theirs).tolist()
        merged = [coco.merge([theirs[a], theirs[b]], intersect=True) for a, b in pairs.tolist()]
        assert common.tolist() == [int(coco.area(one)) for one in merged]


def runs_of(code):
    """The lengths of a code's runs, character by character; None if it is damaged."""
    runs, number, shift = [], 0, 0
    for character in code:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 25:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (1 << shift) if bits & 16 else 0
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return None
        number = shift = 0
    return None if shift else runs


CODES = st.binary(max_size=12) | st.text("0123456789:;<=>?@ABCDO`o1P", max_size=12).map(str.encode)


@properties
@given(st.lists(CODES, max_size=6), SIZES, st.data())
def test_codes_are_refused_exactly_if_they_are_damaged(codes, size, data):
    """Codes of any characters, and good codes of which a few characters are changed."""
    mask = data.draw(arrays(bool, size))
    good = rle.encode(mask)["counts"]
    codes.append(good)
    at = data.draw(st.integers(0, len(good) - 1))
    codes.append(good[:at] + data.draw(CODES) + good[at + 1 :])
    shapes = [{"size": list(size), "counts": code} for code in codes]
    expected = {
        i for i, code in enumerate(codes)
        if runs_of(code) is None or sum(runs_of(code)) != mask.size
    }  # fmt: skip
    assert mask_faults(shapes, [size] * len(shapes)).keys() == expected
