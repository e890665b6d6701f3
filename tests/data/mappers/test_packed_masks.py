"""Packed masks are detectron2's BitMasks in fewer bytes."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances

from rankseg_d2.data.mappers.packed_masks import BitPackedMasks, IdMapMasks, pack, packed_masks


def random_masks(count, overlap, size=(13, 17), seed=0):
    """(N, H, W) bool; one is empty."""
    generator = np.random.RandomState(seed)
    if overlap:
        masks = generator.rand(count, *size) < 0.3
    else:
        masks = generator.randint(0, count + 1, size) == np.arange(1, count + 1)[:, None, None]
    masks[count // 2] = False
    return masks


def pack_whole(masks):
    pieces = [(0, 0, mask) for mask in masks]
    return packed_masks(pack(pieces, masks.shape[1:]), len(masks))


CASES = [(1, False), (3, False), (12, False), (300, False), (3, True), (8, True), (21, True)]


@pytest.mark.parametrize(("count", "overlap"), CASES)
def test_masks_come_out_as_they_went_in(count, overlap):
    masks = random_masks(count, overlap)
    packed = pack_whole(masks)
    assert isinstance(packed, BitPackedMasks if overlap else IdMapMasks)
    assert packed.tensor.dtype == torch.bool
    np.testing.assert_array_equal(packed.tensor.numpy(), masks)
    np.testing.assert_array_equal(packed.nonempty().numpy(), masks.any((1, 2)))
    assert len(packed) == count and packed.image_size == (13, 17)
    expected = BitMasks(masks).get_bounding_boxes().tensor
    assert torch.equal(packed.get_bounding_boxes().tensor, expected)
    np.testing.assert_array_equal(np.stack([mask.numpy() for mask in packed]), masks)


@pytest.mark.parametrize(("count", "overlap"), CASES)
@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, None, 2), slice(0, 0), [0], torch.tensor([0, 0]), np.int64(0)],
)
def test_indexing_is_that_of_bit_masks(count, overlap, index):
    masks = torch.from_numpy(random_masks(count, overlap))
    expected = masks[index]
    expected = expected[None] if expected.dim() == 2 else expected
    assert torch.equal(pack_whole(masks.numpy())[index].tensor, expected)


def test_indexing_by_bool_keeps_what_is_true():
    masks = random_masks(21, True)
    packed = pack_whole(masks)
    kept = packed[packed.nonempty()]
    assert len(kept) == 20
    np.testing.assert_array_equal(kept.tensor.numpy(), masks[masks.any((1, 2))])
    none = kept[kept.nonempty() & False]
    assert none.tensor.shape == (0, 13, 17)
    assert none.get_bounding_boxes().tensor.shape == (0, 4)


def test_types_are_the_smallest_that_hold_all_masks():
    assert pack_whole(random_masks(255, False)).packed.dtype == torch.uint8
    assert pack_whole(random_masks(256, False)).packed.dtype == torch.int16
    assert pack_whole(random_masks(9, True)).packed.shape == (2, 13, 17)


def test_pieces_may_cover_a_part_of_the_image():
    pieces = [(2, 3, np.ones((4, 5), bool)), (0, 0, np.eye(6, dtype=bool))]
    masks = np.zeros((3, 10, 12), bool)
    masks[0, 2:6, 3:8] = True
    masks[1, :6, :6] = np.eye(6)
    pieces.append((9, 9, np.ones((0, 2), bool)))
    packed = packed_masks(pack(pieces, (10, 12)), 3)
    assert isinstance(packed, BitPackedMasks)  # they overlap on the diagonal
    np.testing.assert_array_equal(packed.tensor.numpy(), masks)


def test_no_mask_at_all():
    packed = packed_masks(pack([], (4, 5)), 0)
    assert packed.tensor.shape == (0, 4, 5)
    assert packed.nonempty().shape == (0,)


@pytest.mark.parametrize("overlap", [False, True])
def test_instances_hold_pickle_and_filter_them(overlap):
    masks = random_masks(10, overlap)
    instances = Instances((13, 17), gt_classes=torch.arange(10), gt_masks=pack_whole(masks))
    instances = pickle.loads(pickle.dumps(instances)).to("cpu")
    instances = instances[instances.gt_classes > 6]
    np.testing.assert_array_equal(instances.gt_masks.tensor.numpy(), masks[7:])
    assert "num_instances=3" in repr(instances.gt_masks)


def test_any_integer_can_be_an_id():
    id_map = torch.tensor([[70000, 5], [5, 65535]], dtype=torch.int32)
    masks = IdMapMasks(id_map, [5, 70000, 9])
    assert masks.tensor.flatten(1).int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert masks.nonempty().tolist() == [True, True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("overlap", [False, True])
def test_masks_unpack_on_the_gpu(overlap):
    masks = random_masks(10, overlap)
    packed = pack_whole(masks).to("cuda")
    assert packed.device.type == "cuda" and packed.tensor.is_cuda
    np.testing.assert_array_equal(packed.tensor.cpu().numpy(), masks)
    assert packed[packed.nonempty()].tensor.shape[0] == 9
