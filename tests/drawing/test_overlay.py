"""A result on its image: every pixel is the blend that it should be; the image stays as it is."""

import numpy as np
import pytest

from rankseg_d2.drawing import Segment, class_colors, draw_overlay
from rankseg_d2.drawing.colors import spread_colors, tint

NAMES = ["sky", "road", "person"]
COLORS = np.array([(200, 10, 20), (30, 240, 50), (60, 70, 180)], np.uint8)
PLAIN = {"names": NAMES, "colors": COLORS, "outlines": False, "text": False}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def blended(image, color, alpha):
    return (1 - alpha) * image.astype(float) + alpha * np.asarray(color, float)


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_a_semantic_result_is_a_blend_where_there_is_a_class(alpha):
    image, labels = noise(7, 9, 3), np.random.default_rng(1).integers(-1, 5, (7, 9))
    picture = draw_overlay(image, labels=labels, alpha=alpha, **PLAIN)
    for place in np.ndindex(7, 9):
        known = 0 <= labels[place] < 3
        expected = blended(image[place], COLORS[labels[place]], alpha) if known else image[place]
        assert np.abs(picture[place] - expected).max() <= 0.5 + 1e-6


def test_ids_lead_to_tints_of_the_classes():
    ids = np.array([[5, 900000, 7, 0, -3, 12]] * 2)
    segments = [
        Segment(2, id=5), Segment(2, id=7), Segment(1, id=900000, is_thing=False), Segment(0, id=77)
    ]  # fmt: skip
    picture = draw_overlay(
        np.zeros((2, 6, 3), np.uint8), ids=ids, segments=segments, alpha=1, **PLAIN
    )
    expected = [COLORS[2], COLORS[1], tint(COLORS[2], 1), *[(0, 0, 0)] * 3]
    assert picture[1].tolist() == np.array(expected).tolist()
    assert (picture[0, 0] != picture[0, 2]).any()


def test_segments_of_the_only_class_have_colours_of_their_own():
    masks = np.arange(8)[:, None, None] == np.arange(8)[None, :].repeat(4, 0)
    segments = [Segment(0, mask=mask) for mask in masks]
    options = {"alpha": 1, "outlines": False, "text": False}
    picture = draw_overlay(np.zeros((4, 8), np.uint8), segments=segments, names=["x"], **options)
    np.testing.assert_array_equal(picture[0], spread_colors(8))


def test_grounds_have_no_tints():
    ids = np.array([[1, 2, 3]])
    segments = [Segment(0, id=1), Segment(0, id=2, is_thing=False), Segment(0, id=3)]
    picture = draw_overlay(noise(1, 3), ids=ids, segments=segments, alpha=1, **PLAIN)
    expected = [tint(COLORS[0], number) for number in (0, 0, 1)]
    assert picture[0].tolist() == np.array(expected).tolist()


def test_small_masks_lie_on_large_ones():
    large, small = np.zeros((2, 6, 8), bool)
    large[:5], small[1:3, 2:4] = True, True
    for masks in ([large, small], [small, large]):
        segments = [Segment(0 if mask is large else 1, mask=mask) for mask in masks]
        picture = draw_overlay(noise(6, 8), segments=segments, alpha=1, **PLAIN)
        assert (picture[1:3, 2:4] == COLORS[1]).all()
        assert (picture[large & ~small] == COLORS[0]).all()
        assert np.array_equal(picture[5, :, 0], noise(6, 8)[5])


def test_masks_and_ids_give_the_same_picture():
    ids = np.repeat(np.repeat(np.random.default_rng(2).integers(0, 6, (5, 7)), 9, 0), 9, 1)
    image = noise(*ids.shape, 3)
    kwargs = {**PLAIN, "boxes": True}
    by_id = [Segment(i % 3, id=i) for i in range(1, 6)]
    by_mask = [Segment(i % 3, mask=ids == i) for i in range(1, 6)]
    first = draw_overlay(image, ids=ids, segments=by_id, **kwargs)
    assert np.array_equal(first, draw_overlay(image, segments=by_mask, **kwargs))
    turned = [Segment(s.category, mask=np.asfortranarray(s.mask).view(np.uint8)) for s in by_mask]
    assert np.array_equal(first, draw_overlay(image, segments=turned, **kwargs))


def test_outlines_are_one_light_pixel_wide_and_not_along_the_border():
    ids = np.zeros((40, 40), int)
    ids[:, 20:] = 1
    segments = [Segment(0, id=0), Segment(1, id=1)]
    plain = draw_overlay(noise(40, 40), ids=ids, segments=segments, **PLAIN)
    lined = draw_overlay(
        noise(40, 40), ids=ids, segments=segments, **{**PLAIN, "outlines": True}
    )  # fmt: skip
    changed = (plain != lined).any(-1)
    assert changed.sum(1).tolist() == [1] * 40
    assert (lined[changed] >= plain[changed]).all()
    whole = [Segment(0, mask=np.ones((40, 40), bool))]
    assert np.array_equal(
        draw_overlay(noise(40, 40), segments=whole, **PLAIN),
        draw_overlay(noise(40, 40), segments=whole, **{**PLAIN, "outlines": True}),
    )


def test_a_covered_mask_keeps_its_outline():
    low, high = np.zeros((2, 60, 60), bool)
    low[10:30, 10:30], high[20:35, 5:55] = True, True
    segments = [Segment(0, mask=low), Segment(1, mask=high)]
    plain = draw_overlay(noise(60, 60), segments=segments, **PLAIN)
    lined = draw_overlay(noise(60, 60), segments=segments, **{**PLAIN, "outlines": True})
    assert (plain != lined).any(-1)[29, 12:28].all()  # the lower side of the covered one


def test_boxes_and_scores_are_drawn_only_if_asked():
    mask = np.zeros((200, 300), bool)
    mask[20:150, 30:200] = True
    segments = [Segment(2, mask=mask, score=0.87)]

    def draw(**options):
        return draw_overlay(noise(200, 300), segments=segments, names=NAMES, **options)

    boxed = (draw() != draw(boxes=True)).any(-1)
    assert boxed[20, 30:200].all()
    assert boxed[20:150, 199].all()
    assert not boxed[21:149, 31:199].any()
    assert not np.array_equal(draw(), draw(scores=True))
    without = [Segment(2, mask=mask)]
    assert np.array_equal(
        draw(), draw_overlay(noise(200, 300), segments=without, names=NAMES, scores=True)
    )


def test_names_stand_in_their_regions_and_read_white_on_dark():
    labels = np.zeros((240, 320), int)
    labels[:, 160:] = 1
    with_names = draw_overlay(noise(240, 320), labels=labels, names=["Himmel", "дерево"])
    without = draw_overlay(noise(240, 320), labels=labels, names=["Himmel", "дерево"], text=False)
    changed = (with_names != without).any(-1)
    for half in (changed[:, :160], changed[:, 160:]):
        assert 300 < half.sum() < 3000
    assert (with_names[changed].min(-1) > 190).sum() > 20
    assert with_names[changed].min() < 80


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (64, 64)])
def test_tiny_and_grey_pictures(shape):
    image, labels = noise(*shape), np.random.default_rng(0).integers(-1, 4, shape)
    corner = np.zeros(shape, bool)
    corner[-1, -1] = True
    segments = [
        Segment(0, mask=corner),
        Segment(1, mask=~corner),
        Segment(1, mask=corner & ~corner),
    ]
    options = {"names": NAMES, "boxes": True, "scores": True}
    for given in (
        {"labels": labels},
        {"segments": segments},
        {"ids": labels, "segments": [Segment(0, id=-1, score=1), Segment(2, id=3)]},
        {"segments": []},
        {"ids": labels, "segments": []},
    ):
        picture = draw_overlay(image, **given, **options)
        assert picture.shape == (*shape, 3)
        assert picture.dtype == np.uint8
        if given.get("segments") == []:
            assert (picture == image[..., None]).all()


def test_the_image_stays_as_it_is():
    image = noise(90, 120, 3)
    image.flags.writeable = False
    before = image.copy()
    mask = np.ones((90, 120), bool)
    for given in (
        {"labels": mask.astype(int)},
        {"segments": [Segment(0, mask=mask)]},
        {"segments": []},
    ):
        picture = draw_overlay(image, names=NAMES, boxes=True, alpha=0, **given)
        assert picture.flags.writeable
        assert not np.shares_memory(picture, image)
    assert np.array_equal(image, before)
    assert mask.all()


def test_thousands_of_classes():
    names = [f"class {i}" for i in range(8000)]
    labels = np.full((60, 80), 7999, np.uint16)
    labels[:30] = 8000  # nothing
    picture = draw_overlay(
        np.zeros((60, 80, 3), np.uint8), labels=labels, names=names, alpha=1, text=False
    )
    assert (picture[40:] == class_colors(names[-1:])[0]).all()
    assert not picture[:29].any()


MASK = np.ones((4, 5), bool)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "takes labels, or segments"),
        ({"labels": MASK * 1, "segments": []}, "takes labels, or segments"),
        ({"ids": MASK * 1}, "takes labels, or segments"),
        ({"labels": MASK[:3] * 1}, r"labels has size \(3, 5\), the picture \(4, 5\)"),
        ({"labels": MASK * 1.0}, "labels must be an array of integers, got float64"),
        ({"segments": [Segment(0, mask=MASK[:, :2])]}, "a mask has size"),
        ({"segments": [Segment(0, id=3)]}, "a segment has no mask"),
        ({"ids": MASK * 1, "segments": [Segment(0, mask=MASK)]}, "a segment has no id"),
        ({"segments": [Segment(3, mask=MASK)]}, "category 3, but there are 3 names"),
        ({"labels": MASK * 1, "alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"labels": MASK * 1, "colors": COLORS[:2]}, "each of the 3 names"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        draw_overlay(noise(4, 5, 3), names=NAMES, **given)
