"""The mappers' augmentations: the pictures and labels of detectron2's, by the same draws."""

import random

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from rankseg_d2.data.mappers.augmentations import (
    ColorAugSSD,
    LargeScaleJitter,
    ResizeAndCrop,
    ResizeShortestEdgeAndCrop,
    in_order,
    nearest,
)


def scene(seed, low=90, high=300):
    """A random image and a label map in blocks, of a random size."""
    generator = np.random.RandomState(seed)
    h, w = generator.randint(low, high, 2)
    image = generator.randint(0, 256, (h, w, 3)).astype(np.uint8)
    coarse = generator.choice([0, 1, 2, 255], (h // 20 + 1, w // 20 + 1))
    return image, coarse.repeat(20, 0).repeat(20, 1)[:h, :w]


def augmented(augmentations, seed, label_type):
    """Image, labels, the same labels in 8 bits, and moved points."""
    image, labels = scene(seed)
    np.random.seed(seed)
    aug_input = T.AugInput(image, sem_seg=labels.astype(label_type))
    transforms = T.AugmentationList(augmentations)(aug_input)
    points = transforms.apply_coords(np.array([[3.0, 4.0], [50.0, 7.0]]))
    small = transforms.apply_segmentation(labels.astype(np.uint8))
    return aug_input.image, aug_input.sem_seg, small, points


def assert_same(ours, theirs, seeds):
    for seed in seeds:
        # detectron2 turns labels to double, for which torch finds the nearest pixel
        pairs = zip(augmented(ours, seed, np.int32), augmented(theirs, seed, float), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [97, 160, 300])
def test_large_scale_jitter_equals_detectron2s_transforms(size):
    assert_same(
        [T.RandomFlip(), LargeScaleJitter(0.3, 2.0, size)],
        [
            T.RandomFlip(),
            T.ResizeScale(0.3, 2.0, size, size),
            T.FixedSizeCrop((size, size), seg_pad_value=0),
        ],
        range(25),
    )


@pytest.mark.parametrize("max_area", [1.0, 0.5])
@pytest.mark.parametrize(
    "crop", [("absolute", (80, 70)), ("relative_range", (0.4, 0.6)), ("absolute_range", (60, 90))]
)
def test_resize_and_crop_equals_detectron2s_transforms(crop, max_area):
    resize = (64, 100, 150, 250), 400, "choice"
    assert_same(
        [ResizeShortestEdgeAndCrop(*resize, *crop, max_area, 255), T.RandomFlip()],
        [
            T.ResizeShortestEdge(*resize),
            T.RandomCrop_CategoryAreaConstraint(*crop, max_area, 255),
            T.RandomFlip(),
        ],
        range(15),
    )


def test_without_crop_the_whole_image_is_resized():
    resize = (64, 250), 300, "range"
    assert_same([ResizeShortestEdgeAndCrop(*resize)], [T.ResizeShortestEdge(*resize)], range(10))
    untouched = ResizeShortestEdgeAndCrop(0, 300, "choice")
    image, labels = scene(0)
    aug_input = T.AugInput(image, sem_seg=labels)
    untouched(aug_input)
    np.testing.assert_array_equal(aug_input.image, image)
    np.testing.assert_array_equal(aug_input.sem_seg, labels)


def test_crops_of_one_category_are_drawn_again():
    image = np.zeros((60, 90, 3), np.uint8)
    labels = np.zeros((60, 90), np.int32)
    labels[:, 45:] = 1
    augmentation = ResizeShortestEdgeAndCrop(60, 90, "choice", "absolute", (20, 20), 0.9)
    crops = []
    for seed in range(30):
        np.random.seed(seed)
        crops.append(augmentation.get_transform(image, labels).apply_segmentation(labels))
    alone = sum(len(np.unique(crop)) == 1 for crop in crops)
    assert alone < 5  # of single draws, three in four hold one category


def test_the_area_constraint_needs_labels():
    augmentation = ResizeShortestEdgeAndCrop(60, 90, "choice", "absolute", (20, 20), 0.9)
    with pytest.raises(ValueError, match="SINGLE_CATEGORY_MAX_AREA.*sem_seg_file_name"):
        augmentation(T.AugInput(np.zeros((60, 90, 3), np.uint8)))


def test_padding_has_its_own_values():
    transform = ResizeAndCrop(4, 6, (8, 12), (0, 0), (10, 16), label_pad=7)
    image = transform.apply_image(np.zeros((4, 6, 3), np.uint8))
    labels = transform.apply_segmentation(np.zeros((4, 6, 2), np.uint8))
    assert image.shape == (10, 16, 3) and labels.shape == (10, 16, 2)
    assert (image[8:] == 128).all() and (image[:, 12:] == 128).all() and not image[:8, :12].any()
    assert (labels[8:] == 7).all() and (labels[:, 12:] == 7).all() and not labels[:8, :12].any()


@pytest.mark.parametrize("like_pillow", [True, False])
def test_nearest_pixels_are_those_of_detectron2(like_pillow):
    generator = np.random.RandomState(0)
    for size, new_size in generator.randint(2, 900, (60, 2)).tolist():
        places = np.arange(size).repeat(130).reshape(size, 130)
        if like_pillow:  # which resizes 8 bits: the low ones, then the high ones
            resize = T.ResizeTransform(size, 130, new_size, 130)
            low, high = (resize.apply_segmentation(x.astype(np.uint8)) for x in
                         (places % 256, places // 256))  # fmt: skip
            expected = low[:, 0] + 256 * high[:, 0].astype(int)
        else:
            resize = T.ResizeTransform(size, 130, new_size, 130)
            expected = resize.apply_segmentation(places.astype(float))[:, 0]
        np.testing.assert_array_equal(nearest(size, new_size, like_pillow), expected)


def plain_ssd(image):
    """SSD's colours, one step after the other in floats, on RGB."""

    def scale(values, factor=1.0, add=0.0):
        return np.clip(values.astype(np.float32) * factor + add, 0, 255).astype(np.uint8)

    def contrast(image):
        return scale(image, random.uniform(0.5, 1.5)) if random.randrange(2) else image

    def hsv(image, change):
        values = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        change(values)
        return cv2.cvtColor(values, cv2.COLOR_HSV2RGB)

    def saturate(values):
        values[..., 1] = scale(values[..., 1], random.uniform(0.5, 1.5))

    def turn(values):
        values[..., 0] = (values[..., 0].astype(int) + random.randint(-18, 18)) % 180

    if random.randrange(2):
        image = scale(image, add=random.uniform(-32, 32))
    contrast_first = random.randrange(2)
    image = contrast(image) if contrast_first else image
    image = hsv(image, saturate) if random.randrange(2) else image
    image = hsv(image, turn) if random.randrange(2) else image
    return image if contrast_first else contrast(image)


def test_colours_change_as_by_plain_arithmetic():
    image, _ = scene(0)
    results = []
    for seed in range(60):
        random.seed(seed)
        expected = plain_ssd(image)
        after = random.random()
        random.seed(seed)
        result = ColorAugSSD().get_transform(image).apply_image(image)
        np.testing.assert_array_equal(result, expected)
        assert random.random() == after  # as many numbers were drawn
        results.append(result)
    assert any((result != image).any() for result in results)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colours_equal_detectron2s(image_format):
    point_rend = pytest.importorskip("detectron2.projects.point_rend", exc_type=ImportError)
    theirs = point_rend.ColorAugSSDTransform(image_format)
    for seed in range(60):
        image, _ = scene(seed)
        random.seed(seed)
        expected = theirs.apply_image(image if image_format == "RGB" else image[..., ::-1])
        random.seed(seed)
        result = ColorAugSSD().get_transform(image).apply_image(image)
        result = result if image_format == "RGB" else result[..., ::-1]
        np.testing.assert_array_equal(result, expected)


def test_colours_leave_labels_and_places_alone():
    transform = ColorAugSSD().get_transform(np.zeros((2, 2, 3), np.uint8))
    labels = np.arange(4).reshape(2, 2)
    np.testing.assert_array_equal(transform.apply_segmentation(labels), labels)
    np.testing.assert_array_equal(transform.apply_coords(np.ones((1, 2))), np.ones((1, 2)))


def test_in_order_lays_out_any_view():
    image, _ = scene(0)
    for view in (image, image[:, ::-1], image[::-1], image[::2, 3:], image[..., ::-1]):
        result = in_order(view)
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, view)
