"""preprocessor_config.json as keys."""

import pytest

from rankseg_d2.convert.huggingface.images import read_images


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        ({}, {"INPUT.MIN_SIZE_TEST": 800, "INPUT.MAX_SIZE_TEST": 1333,
              "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
              "MODEL.PIXEL_STD": [58.395, 57.12, 57.375]}),
        ({"image_mean": [0.48500001430511475] * 3}, {"MODEL.PIXEL_MEAN": [123.675] * 3}),
        ({"do_rescale": False, "image_mean": [3] * 3}, {"MODEL.PIXEL_MEAN": [3.0] * 3}),
        ({"do_normalize": False}, {"MODEL.PIXEL_MEAN": [0.0] * 3, "MODEL.PIXEL_STD": [255.0] * 3}),
        ({"do_resize": False}, {"INPUT.MIN_SIZE_TEST": 0}),
        ({"size": 640, "max_size": 2560},
         {"INPUT.MIN_SIZE_TEST": 640, "INPUT.MAX_SIZE_TEST": 2560}),
        ({"size": {"shortest_edge": 512}},
         {"INPUT.MIN_SIZE_TEST": 512, "INPUT.MAX_SIZE_TEST": 100_000}),
        ({"size_divisor": 0}, {"MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 0}),
    ],
)  # fmt: skip
def test_preprocessing_becomes_keys(found, keys):
    assert read_images(found)[0].items() >= keys.items()


def test_what_preprocessing_does_otherwise_is_said():
    keys, notes = read_images({"size": {"height": 384, "width": 512}, "resample": 3})
    assert keys["INPUT.MIN_SIZE_TEST"] == 384
    assert "resample is 3" in notes[0] and "stretches images to 384 x 512" in notes[1]
    assert "no preprocessor_config.json" in read_images({})[1][0]
    with pytest.raises(ValueError, match="size is .* but should have shortest_edge"):
        read_images({"size": {"max_height": 3}})
