"""Augmentations and transforms of whichever engine answers `import detectron2`."""

import pickle

import numpy as np
import pytest
from detectron2.data import transforms as T

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="the text of the embedded engine's errors"
)


@pytest.fixture
def image():
    return np.random.RandomState(0).randint(0, 255, (60, 90, 3)).astype(np.uint8)


@pytest.fixture
def labels():
    coarse = np.random.RandomState(1).randint(0, 4, (6, 9))
    return coarse.repeat(10, 0).repeat(10, 1).astype(np.uint8)


def test_fvcore_transforms_are_there_too():
    for name in ("CropTransform", "PadTransform", "HFlipTransform", "TransformList", "Transform"):
        assert hasattr(T, name)
    assert T.apply_transform_gens is T.apply_augmentations


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)])
def test_resize_keeps_type_and_layout(shape, dtype):
    out = T.ResizeTransform(8, 6, 5, 12).apply_image(np.ones(shape, dtype) * 7)
    assert out.shape == (5, 12, *shape[2:])
    assert out.dtype == dtype
    np.testing.assert_allclose(out, 7)


def test_resizing_labels_makes_no_new_labels(labels):
    out = T.ResizeTransform(60, 90, 37, 101).apply_segmentation(labels)
    assert set(np.unique(out)) <= set(np.unique(labels))


def test_resize_inverse_returns_the_coordinates():
    transform = T.ResizeTransform(60, 90, 37, 101)
    coords = np.array([[3.0, 4], [90, 60]])
    back = transform.inverse().apply_coords(transform.apply_coords(coords.copy()))
    np.testing.assert_allclose(back, coords)
    np.testing.assert_allclose(transform.apply_coords(coords.copy())[1], [101, 37])


def test_shortest_edge_obeys_both_limits():
    assert T.ResizeShortestEdge.get_output_shape(480, 640, 240, 1000) == (240, 320)
    assert T.ResizeShortestEdge.get_output_shape(480, 640, 800, 1000) == (750, 1000)
    assert T.ResizeShortestEdge.get_output_shape(10, 33, 5, 1000) == (5, 17)


def test_shortest_edge_draws_from_its_range(image):
    sizes = {T.ResizeShortestEdge((20, 23)).get_transform(image).new_h for _ in range(60)}
    assert sizes == {20, 21, 22, 23}
    choice = T.ResizeShortestEdge([16, 32], sample_style="choice")
    assert {choice.get_transform(image).new_h for _ in range(40)} == {16, 32}


def test_image_labels_and_boxes_move_together(image):
    image[20:30, 50:70] = 255
    labels = (image == 255).all(2).astype(np.uint8)
    box = np.array([[50.0, 20, 70, 30]])
    np.random.seed(0)
    aug_input = T.AugInput(image, boxes=box, sem_seg=labels)
    augs = [T.RandomFlip(1.0), T.Resize((120, 180)), T.FixedSizeCrop((128, 200))]
    aug_input.apply_augmentations(augs)
    assert aug_input.image.shape == (128, 200, 3)
    assert aug_input.sem_seg.shape == (128, 200)
    assert aug_input.sem_seg[-1, -1] == 255  # padded
    ys, xs = np.nonzero(aug_input.sem_seg == 1)
    np.testing.assert_allclose(
        aug_input.boxes[0], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    )


def test_equal_seeds_give_equal_transforms(image, labels):
    recipe = T.AugmentationList(
        [
            T.ResizeScale(0.5, 2.0, 64, 64),
            T.RandomCrop_CategoryAreaConstraint("absolute", (32, 32), 0.75, 255),
            T.RandomApply(T.RandomContrast(0.5, 1.5), 0.5),
            T.RandomFlip(),
        ]
    )
    outs = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        aug_input = T.AugInput(image, sem_seg=labels)
        recipe(aug_input)
        outs.append(aug_input.image)
    np.testing.assert_array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])


def test_category_constraint_avoids_crops_of_one_category(image):
    labels = np.zeros((60, 90), np.uint8)
    labels[:, 45:] = 1
    aug = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.9)
    alone = sum(
        len(np.unique(aug.get_transform(image, labels).apply_segmentation(labels))) == 1
        for _ in range(50)
    )
    assert alone < 10  # of single crops, three in four would hold one category


def test_fixed_size_crop_reaches_every_border(image):
    aug = T.FixedSizeCrop((30, 30), pad=False)
    offsets = [aug.get_transform(image).transforms[0] for _ in range(300)]
    assert {0, 60} <= {int(crop.x0) for crop in offsets}
    assert all(0 <= crop.y0 <= 30 for crop in offsets)


def test_random_apply_passes_every_input_on(image, labels):
    aug = T.RandomApply(T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.9), 1.0)
    aug_input = T.AugInput(image, sem_seg=labels)
    assert isinstance(aug(aug_input), T.CropTransform)
    assert aug_input.sem_seg.shape == (20, 20)
    assert isinstance(T.RandomApply(T.RandomFlip(1.0), 0.0)(aug_input), T.NoOpTransform)


def test_colour_augmentations_blend_as_they_say(image):
    assert T.RandomBrightness(0, 0).get_transform(image).apply_image(image).max() == 0
    grey = T.RandomSaturation(0, 0).get_transform(image).apply_image(image)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert T.RandomContrast(0, 0).get_transform(image).apply_image(image).std() == 0
    same = T.RandomContrast(1, 1).get_transform(image).apply_image(image)
    np.testing.assert_array_equal(same, image)
    inverted = T.ColorTransform(lambda pixels: 255 - pixels)
    np.testing.assert_array_equal(inverted.apply_image(inverted.apply_image(image)), image)


def test_an_augmentation_gets_what_its_arguments_name(image, labels):
    class Needs(T.Augmentation):
        def __init__(self, factor, other=3):
            self._init(locals())

        def get_transform(self, image, sem_seg):
            assert sem_seg is labels
            return T.HFlipTransform(image.shape[1])

    aug_input = T.AugInput(image, sem_seg=labels)
    assert isinstance(Needs(2)(aug_input), T.HFlipTransform)
    np.testing.assert_array_equal(aug_input.sem_seg, labels[:, ::-1])
    assert repr(Needs(2)) == "Needs(factor=2)"
    assert repr(Needs(2, other=None)) == "Needs(factor=2, other=None)"


def test_an_augmentation_that_asks_for_too_much_is_named(image):
    class Greedy(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match="depth"):
        Greedy()(T.AugInput(image))


def test_apply_augmentations_takes_an_array_or_an_input(image):
    out, transforms = T.apply_augmentations([T.RandomFlip(1.0), T.VFlipTransform(60)], image)
    np.testing.assert_array_equal(out, image[::-1, ::-1])
    assert isinstance(transforms, T.TransformList)
    aug_input, _ = T.apply_augmentations([T.RandomFlip(1.0)], T.AugInput(image))
    np.testing.assert_array_equal(aug_input.image, image[:, ::-1])


def test_augmentations_survive_pickling(image):
    recipe = T.AugmentationList([T.ResizeScale(0.5, 2.0, 64, 64), T.FixedSizeCrop((64, 64))])
    outs = []
    for aug in (recipe, pickle.loads(pickle.dumps(recipe))):
        np.random.seed(0)
        outs.append(T.apply_augmentations([aug], image)[0])
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: T.RandomFlip(horizontal=True, vertical=True), "exactly one"),
        (lambda: T.RandomFlip(horizontal=False), "exactly one"),
        (lambda: T.RandomCrop("square", (1, 1)), "'square'"),
        (lambda: T.ResizeShortestEdge([1, 2, 3]), "sample_style='choice'"),
        (lambda: T.ResizeShortestEdge([1, 2], sample_style="any"), "'any'"),
        (lambda: T.RandomApply(T.RandomFlip(), 1.5), "1.5"),
        (lambda: T.AugmentationList([3]), "3"),
        (lambda: T.AugInput([[0]]), "list"),
        (lambda: T.AugInput(np.zeros(3)), r"\(3,\)"),
        (lambda: T.RandomSaturation(0, 1).get_transform(np.zeros((4, 4))), r"\(4, 4\)"),
        (lambda: T.RandomCrop("relative", (2, 1)).get_transform(np.zeros((4, 4))), "8 x 4"),
        (lambda: T.ResizeTransform(4, 4, 2, 2).apply_image(np.zeros((5, 4))), r"\(5, 4\)"),
        (lambda: T.ResizeTransform(4, 4, 2, 2, 1).apply_image(np.zeros((4, 4))), "float64"),
        (lambda: T.RandomCrop_CategoryAreaConstraint("absolute", (2, 2), 0.5)(
            T.AugInput(np.zeros((4, 4)))), "sem_seg"),
    ],
)  # fmt: skip
@embedded_only
def test_wrong_arguments_are_named(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()
