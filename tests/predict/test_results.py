"""What a result says and draws, and the data set's own ids."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageShow
from support.predicting import ALL, NAMES, ROWS, make_predictor, pixels, ranking_predictor
from support.small import KINDS

from rankseg_d2.predict.classes import Classes
from rankseg_d2.predict.results import ImageResult, Instances, Panoptic

SIZE = (4, 6)


def made(**fields):
    return ImageResult(np.zeros((*SIZE, 3), np.uint8), Classes.of(ROWS), "a.jpg", **fields)


def labels_of(*columns):
    return np.array([columns] * SIZE[0], np.uint8)


def instances(*rows):
    """Of (class, score, columns)."""
    from pycocotools import mask as coco

    masks = [np.isin(np.arange(SIZE[1]), columns)[None].repeat(SIZE[0], 0) for *_, columns in rows]
    rles = tuple(coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks)
    boxes = np.array([[min(c), 0, max(c) + 1, SIZE[0]] for *_, c in rows], float).reshape(-1, 4)
    numbers = np.array([number for number, *_ in rows], int)
    return Instances(np.array([score for _, score, _ in rows]), numbers, boxes, rles, SIZE)


def test_names_and_shares_are_by_area_without_what_is_none():
    result = made(semantic=labels_of(1, 1, 1, 4, 7, 7))
    assert result.names == ("sky", "tree")
    assert result.shares() == {1: 1 / 2, 4: 1 / 6}
    assert repr(result) == "ImageResult(a.jpg: 6 x 4; sky 50 %, tree 17 %)"
    assert made(semantic=labels_of(*[7] * 6)).names == ()
    assert "nothing" in repr(made(semantic=labels_of(*[7] * 6)))


def test_labels_of_segments():
    ids = np.array([[0, 1, 1, 3, 3, 2]] * 4, np.int32)
    segments = tuple(
        {"id": i, "category_id": n, "isthing": True} for i, n in [(1, 4), (2, 4), (3, 0)]
    )
    result = made(panoptic=Panoptic(ids, segments))
    np.testing.assert_array_equal(result.labels(), labels_of(7, 4, 4, 0, 0, 4))
    empty = made(panoptic=Panoptic(np.zeros(SIZE, np.int32), ()))
    assert (empty.labels() == 7).all()


def test_labels_of_instances_are_those_of_the_likely_ones_the_best_on_top():
    found = instances((2, 0.9, [0, 1]), (3, 0.8, [1, 2]), (5, 0.4, [3, 4]))
    result = made(instances=found)
    np.testing.assert_array_equal(result.labels(), labels_of(2, 2, 3, 7, 7, 7))
    assert result.names == ("car", "bus") and "2 likely instances" in repr(result)
    assert found.masks.shape == (3, *SIZE) and found.masks.sum() == 6 * 4
    assert instances().masks.shape == (0, *SIZE) and made(instances=instances()).names == ()


def test_own_ids_are_those_of_the_label_files():
    result = made(semantic=labels_of(0, 1, 2, 6, 7, 7))
    own = result.labels(own_ids=True)
    assert own.dtype == np.uint8
    np.testing.assert_array_equal(own, labels_of(10, 11, 12, 16, 255, 255))


@pytest.mark.parametrize(
    "ids, ignore, wanted, kind",
    [
        ([0, 1], 255, [0, 1, 255], np.uint8),
        ([255, 1], 255, [255, 1, 65535], np.uint16),
        ([255, 1], 0, [255, 1, 0], np.uint8),
        ([300, 1], 255, [300, 1, 255], np.uint16),
        ([255, 65535], 255, [255, 65535, None], None),
        ([-1, 0], 255, None, None),
    ],
)
def test_own_ids_have_bits_enough_and_none_is_no_class(ids, ignore, wanted, kind):
    rows = [{"name": str(i), "id": i} for i in ids]
    classes = Classes.of(rows, ignore)
    if kind is None:
        with pytest.raises(ValueError, match=r"own ids go from .* an image of labels holds 0 to"):
            classes.own_ids(np.array([0, 1, 2]))
        return
    found = classes.own_ids(np.array([0, 1, 2]))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, wanted)


def test_labels_have_16_bits_where_they_need_them():
    for count, kind in ((255, np.uint8), (256, np.uint16)):
        classes = Classes.of([{"name": str(i)} for i in range(count)])
        result = replace(made(semantic=np.full(SIZE, count, np.uint16)), classes=classes)
        assert result.labels().dtype == kind and result.names == ()
        assert (result.labels() == count).all()


def test_classes_without_colours_get_some():
    with_colors = Classes.of([row | {"color": [1, 2, 3]} for row in ROWS])
    assert (with_colors.colors == [1, 2, 3]).all()
    classes = Classes.of(ROWS)
    assert classes.colors.shape == (7, 3) and len(np.unique(classes.colors, axis=0)) == 7
    assert classes.things == {2, 3, 5, 6} and classes.ids == tuple(range(10, 17))


def test_plots_are_of_the_most_detailed_result_with_the_list_beside_it():
    result = ranking_predictor(ALL)(pixels())
    picture = result.plot()
    assert picture.dtype == np.uint8 and picture.shape[1] > 48 + 20
    plain = {kind: result.plot(kind, ranking=False) for kind in ("semantic", "panoptic")}
    assert all(one.shape == (32, 48, 3) for one in plain.values())
    np.testing.assert_array_equal(result.plot(ranking=False), plain["panoptic"])
    assert (plain["semantic"] != plain["panoptic"]).any()
    np.testing.assert_array_equal(
        result.plot("semantic", ranking=False, alpha=0, outlines=False, text=False), result.image
    )
    png = Image.open(io.BytesIO(result._repr_png_()))
    np.testing.assert_array_equal(np.asarray(png), picture)


def test_plots_of_models_without_ranking_list_classes_by_area():
    result = make_predictor(kind=KINDS["mask2former"])(pixels())
    assert result.plot().shape[1] > 48 + 20 and not result.categories
    with pytest.raises(ValueError, match="this result has no 'panoptic', only semantic; what a"):
        result.plot("panoptic")


def test_instances_are_drawn():
    result = made(instances=instances((2, 0.9, [0, 1]), (5, 0.4, [3, 4])))
    picture = result.plot(ranking=False, outlines=False, text=False)
    changed = (picture != result.image).any(-1)
    np.testing.assert_array_equal(changed, np.array([[1, 1, 0, 0, 0, 0]] * 4, bool))


def test_show_without_a_display_says_what_else_to_do(monkeypatch):
    result = made(semantic=labels_of(1, 1, 1, 4, 7, 7))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"no display to show a picture on; use save\(\)"):
        result.show()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(RuntimeError, match=r"no program to show a picture with; use save\(\)"):
        result.show()
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(title) or True)
    result.show()
    assert shown == ["a.jpg"]


def test_results_have_all_names():
    result = ranking_predictor()(pixels())
    assert {one.name for one in result.categories} == set(NAMES)
