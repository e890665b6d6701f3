"""The best class of each pixel against the same made of whole maps."""

import pytest
import torch
import torch.nn.functional as F

from rankseg_d2.ops.semantic import best_classes, by_whole_maps, serves, why_not

needs_operation = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

SIZES = {  # of the masks, the network's input, the image in it, the result
    "one size for all": ((16, 24), (64, 96), (64, 96), (64, 96)),
    "with padding": ((16, 24), (64, 96), (50, 91), (50, 91)),
    "another output": ((16, 24), (64, 96), (50, 91), (133, 70)),
    "a smaller output": ((16, 24), (64, 96), (61, 96), (9, 300)),
    "masks of the input's size": ((32, 32), (32, 32), (32, 30), (45, 45)),
    "a row": ((1, 5), (1, 20), (1, 17), (1, 40)),
    "a pixel": ((3, 3), (12, 12), (1, 1), (1, 1)),
    "many tiles": ((40, 40), (160, 160), (157, 149), (300, 291)),
}


def inputs(size, queries=9, classes=7, dtype=torch.float32, seed=0):
    """Mask logits (Q, h, w) and weights (K, Q)."""
    generator = torch.Generator().manual_seed(seed)
    masks = 4 * torch.randn(queries, *size, generator=generator)
    weights = torch.randn(classes, queries, generator=generator).softmax(0)
    return masks.to(dtype), weights.to(dtype)


def whole_maps(masks, weights, padded, image, output, resize_first):
    def resized(maps, size):
        if maps.shape[-2:] == size:
            return maps
        return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]

    masks = resized(masks, padded)
    masks = masks if resize_first else masks.sigmoid()
    masks = resized(masks[:, : image[0], : image[1]], output)
    masks = masks.sigmoid() if resize_first else masks
    return torch.einsum("kq,qhw->khw", weights, masks)


@needs_operation
@pytest.mark.parametrize("resize_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_labels_and_scores_are_those_of_whole_maps(sizes, dtype, resize_first):
    masks, weights = inputs(sizes[0], dtype=dtype)
    expected = whole_maps(masks, weights, *sizes[1:], resize_first)
    labels, scores = best_classes(masks, weights, *sizes[1:], resize_first, True)
    assert scores.dtype == dtype and labels.dtype == torch.int64
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4 if dtype.itemsize == 4 else 1e-9)
    assert labels.equal(scores.argmax(0))
    alone, nothing = best_classes(masks, weights, *sizes[1:], resize_first, False)
    assert alone.equal(labels) and nothing is None


@needs_operation
def test_the_first_of_equal_classes_wins_and_no_query_is_none():
    masks, weights = inputs((8, 8))
    sizes = [(32, 32)] * 3
    twins = weights[:3].repeat_interleave(2, 0)  # 0 and 1 are equal, and so on
    assert not (best_classes(masks, twins, *sizes, False, False)[0] % 2).any()
    labels, scores = best_classes(masks[:0], weights[:, :0], *sizes, False, True)
    assert not labels.any() and not scores.any()


@needs_operation
def test_strides_and_threads_change_no_bit():
    masks, weights = inputs((40, 40))
    sizes = (160, 160), (160, 141), (333, 222)
    expected = best_classes(masks, weights, *sizes, False, True)
    strided = masks.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found = best_classes(strided, weights.t().contiguous().t(), *sizes, False, True)
            assert all(map(torch.equal, found, expected))
    finally:
        torch.set_num_threads(threads)


@needs_operation
def test_wrong_shapes_are_refused():
    masks, weights = inputs((8, 8))
    good = [(32, 32)] * 3
    for bad in (weights[:, 1:], weights[:0], weights[0]):
        with pytest.raises(ValueError, match="weights"):
            best_classes(masks, bad, *good, False, False)
    with pytest.raises(ValueError, match="sizes must be positive, and the image within"):
        best_classes(masks, weights, (32, 32), (33, 32), (32, 32), False, False)
    with pytest.raises(ValueError, match="sizes must be positive"):
        best_classes(masks, weights, (32, 32), (32, 32), (0, 32), False, False)


@needs_operation
def test_it_serves_what_needs_no_gradient():
    masks, _ = inputs((8, 8))
    assert serves(masks)
    with by_whole_maps():
        assert not serves(masks)
    assert serves(masks)
    masks.requires_grad_()
    assert not serves(masks)
    with torch.no_grad():
        assert serves(masks)
    assert not serves(torch.empty(1, 8, 8, device="meta"))
