"""Sizes and overlaps from run-length codes against pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util

from rankseg_d2.ops.rle import rle_overlaps, why_not

needs_operation = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def random_masks(rng, count, height, width):
    """Boxes with noise: runs of all lengths, at the first and the last pixel too; one is empty."""
    masks = np.zeros((count, height, width), bool)
    for mask in masks[1:]:
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[max(0, y - height // 2) : y + 1, max(0, x - width // 2) : x + 1] = True
        mask ^= rng.random(mask.shape) < rng.choice([0, 0.001, 0.3])
    masks[-1] = True
    return masks


@needs_operation
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 33), (480, 853)])
def test_numbers_are_those_of_the_pixels(size):
    masks = random_masks(np.random.default_rng(0), 12, *size)
    codes = [mask_util.encode(np.asfortranarray(mask, np.uint8))["counts"] for mask in masks]
    pairs = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2)
    areas, common = rle_overlaps([*codes[:6], *(code.decode() for code in codes[6:])], pairs)
    assert areas.tolist() == masks.sum((1, 2)).tolist()
    assert common.tolist() == [(masks[a] & masks[b]).sum() for a, b in pairs]


@needs_operation
@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (4,), (1, 2, 2), ()])
def test_pairs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"pairs must be \(P, 2\)"):
        rle_overlaps([b"1"], np.zeros(shape, int))
    codes, ends = torch.tensor([49], dtype=torch.uint8), torch.tensor([1])
    with pytest.raises(ValueError, match=r"pairs must be \(P, 2\)"):
        torch.ops.rankseg_d2.rle_overlaps(codes, ends, torch.zeros(shape, dtype=torch.int64))


@needs_operation
def test_nothing_is_fine():
    areas, common = rle_overlaps([], np.zeros((0, 2), int))
    assert areas.shape == common.shape == (0,)


@needs_operation
@pytest.mark.parametrize(
    "code, message",
    [
        (b"P", "is cut off"),
        (b"PP", "is cut off"),
        (b"ooo", "is cut off"),
        (b"3 1", "wrong character"),
        (b"3\xff", "wrong character"),
        (b"o" * 20 + b"0", "too long"),
        (b"3O", "negative length"),
        # the same beyond the first characters, which are read on their own
        (b"1" * 80 + b"P", "is cut off"),
        (b"1" * 80 + b"\xff" + b"1" * 40, "wrong character"),
        (b"1" * 80 + b"o" * 70 + b"0", "too long"),
        (b"1" * 80 + b"O" * 200, "negative length"),
    ],
)
def test_damaged_codes_are_refused(code, message):
    with pytest.raises(ValueError, match=message):
        rle_overlaps([code], np.zeros((0, 2), int))


@needs_operation
def test_pairs_must_be_of_masks():
    with pytest.raises(IndexError, match="pair of no mask"):
        rle_overlaps([b"31"], np.array([[0, 1]]))
