import copy
import pickle

import numpy as np
import pytest
import torch
import torchvision
from detectron2.structures import BitMasks, Boxes, BoxMode, ImageList, Instances, PolygonMasks
from detectron2.structures import boxes as box_ops
from detectron2.structures.masks import (
    polygon_area,
    polygons_to_bitmask,
)

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="the sentence is the embedded engine's"
)
REFUSED = (ValueError, AssertionError)


def random_boxes(count: int, seed: int = 0) -> Boxes:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * 50
    return Boxes(corners.sort(dim=1).values.flatten(1))


def rectangle(x0, y0, x1, y1) -> np.ndarray:
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=float)


# Boxes


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_box_mode_converts_and_keeps_the_kind(kind):
    rows = kind([1, 2, 11, 22]) if kind in (list, tuple) else kind([[1, 2, 11, 22]])
    xywh = BoxMode.convert(rows, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    back = BoxMode.convert(xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(xywh) is type(rows)
    assert torch.as_tensor(xywh).flatten().tolist() == [1, 2, 10, 20]
    assert torch.as_tensor(back).flatten().tolist() == [1, 2, 11, 22]


def test_box_mode_refuses_relative_boxes():
    with pytest.raises((*REFUSED, NotImplementedError)):
        BoxMode.convert([0.0, 0.0, 1.0, 1.0], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)


def test_pairwise_iou_equals_torchvision():
    first, second = random_boxes(7), random_boxes(9, seed=1)
    expected = torchvision.ops.box_iou(first.tensor, second.tensor)
    torch.testing.assert_close(box_ops.pairwise_iou(first, second), expected)


def test_overlaps_agree_with_counted_pixels():
    first = Boxes([[0.0, 0, 4, 4], [10, 10, 12, 12]])
    second = Boxes([[2.0, 1, 6, 3], [10, 10, 12, 12]])
    assert box_ops.pairwise_intersection(first, second).tolist() == [[4, 0], [0, 4]]
    assert box_ops.pairwise_ioa(first, second).tolist() == [[0.5, 0], [0, 1]]
    expected = torch.tensor([[4 / 20, 0], [0, 1]])
    torch.testing.assert_close(box_ops.pairwise_iou(first, second), expected)


def test_iou_with_no_boxes_is_empty():
    assert box_ops.pairwise_iou(random_boxes(3), Boxes(torch.zeros(0))).shape == (3, 0)


def test_boxes_clip_scale_and_report():
    boxes = Boxes([[-3, -3, 30, 30], [5, 6, 5, 9]])
    boxes.clip((10, 20))
    boxes.scale(0.5, 2)
    assert boxes.tensor.tolist() == [[0, 0, 10, 20], [2.5, 12, 2.5, 18]]
    assert boxes.nonempty().tolist() == [True, False]
    assert boxes.area().tolist() == [200, 0]
    assert boxes.get_centers().tolist() == [[5, 10], [2.5, 15]]


def test_boxes_index_to_boxes_and_iterate_to_rows():
    boxes = random_boxes(4)
    assert len(boxes[1]) == 1 and len(boxes[torch.tensor([True, False, True, True])]) == 3
    assert torch.equal(boxes[-1].tensor[0], list(boxes)[3])
    assert torch.equal(Boxes.cat([boxes[:1], boxes[1:]]).tensor, boxes.tensor)
    assert len(Boxes.cat([])) == 0


def test_boxes_are_float_and_own_their_copy():
    boxes = Boxes(np.array([[1, 2, 3, 4]]))
    copied = boxes.clone()
    copied.scale(2, 2)
    assert boxes.tensor.dtype == torch.float32 and boxes.tensor.tolist() == [[1, 2, 3, 4]]


def test_boxes_refuse_other_shapes_and_nan():
    with pytest.raises(REFUSED):
        Boxes(torch.zeros(2, 3))
    with pytest.raises(REFUSED):
        Boxes([[float("nan"), 0, 1, 1]]).clip((2, 2))


# Masks


def test_bit_mask_boxes_equal_torchvision_with_exclusive_far_edges():
    masks = torch.rand(5, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.97
    expected = torchvision.ops.masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(BitMasks(masks).get_bounding_boxes().tensor, expected)


def test_empty_bit_mask_has_an_empty_box():
    masks = BitMasks(torch.zeros(2, 5, 6))
    assert masks.nonempty().tolist() == [False, False]
    assert masks.get_bounding_boxes().tensor.tolist() == [[0, 0, 0, 0]] * 2
    assert BitMasks(torch.zeros(0, 5, 6)).get_bounding_boxes().tensor.shape == (0, 4)


def test_bit_masks_index_join_and_iterate():
    masks = BitMasks(np.eye(3, dtype=np.uint8)[:, :, None])
    assert masks.tensor.dtype == torch.bool and tuple(masks.image_size) == (3, 1)
    assert len(masks[0]) == 1 and len(masks[[0, 2]]) == 2
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, masks.tensor)
    assert [mask.sum().item() for mask in masks] == [1, 1, 1]
    with pytest.raises(REFUSED):
        BitMasks(torch.zeros(3, 4))


def test_polygon_area_and_mask_of_a_rectangle():
    x0_y0_x1_y1 = rectangle(2, 1, 7, 4)
    assert polygon_area(x0_y0_x1_y1[0::2], x0_y0_x1_y1[1::2]) == 15
    mask = polygons_to_bitmask([x0_y0_x1_y1], 6, 9)
    expected = np.zeros((6, 9), dtype=bool)
    expected[1:4, 2:7] = True
    assert mask.dtype == bool and np.array_equal(mask, expected)
    assert not polygons_to_bitmask([], 6, 9).any()


def test_polygon_masks_report_boxes_areas_and_index():
    masks = PolygonMasks([[rectangle(1, 2, 3, 5)], [], [rectangle(0, 0, 1, 1)] * 2])
    assert masks.nonempty().tolist() == [True, False, True]
    assert masks.get_bounding_boxes().tensor[[0, 2]].tolist() == [[1, 2, 3, 5], [0, 0, 1, 1]]
    assert masks.area().tolist() == [6, 0, 2]
    assert [len(polygons) for polygons in masks[torch.tensor([2, 0])]] == [2, 1]
    assert len(masks[torch.tensor([True, False, True])]) == 2
    assert len(masks[1:]) == 2 and len(masks[0]) == 1 and len(masks[[]]) == 0
    assert len(PolygonMasks.cat([masks, masks])) == 6


def test_polygon_masks_become_bit_masks():
    masks = BitMasks.from_polygon_masks(PolygonMasks([[rectangle(1, 1, 3, 3)], []]), 4, 5)
    assert masks.tensor.sum(dim=(1, 2)).tolist() == [4, 0]
    assert BitMasks.from_polygon_masks([], 4, 5).tensor.shape == (0, 4, 5)


@pytest.mark.parametrize(
    "wrong", [np.ones((2, 6)), [np.ones(6)], [[np.ones(4)]], [[np.ones(7)]]], ids=repr
)
def test_polygon_masks_refuse_what_are_no_polygons(wrong):
    with pytest.raises(ValueError, match="[Pp]olygon"):
        PolygonMasks(wrong)


# Instances


def instances(count: int = 3) -> Instances:
    return Instances(
        (10, 20), scores=torch.arange(count), names=list("abc"[:count]), boxes=random_boxes(count)
    )


def test_instances_index_every_field():
    one, rest = instances()[-1], instances()[1:]
    assert len(one) == 1 and one.names == ["c"] and one.scores.tolist() == [2]
    assert len(rest.boxes) == 2 and rest.image_size == (10, 20)
    with pytest.raises(IndexError):
        instances()[3]


def test_instances_join():
    joined = Instances.cat([instances(), instances(1)])
    assert joined.names == ["a", "b", "c", "a"] and len(joined.boxes) == 4
    assert joined.scores.tolist() == [0, 1, 2, 0]
    with pytest.raises(REFUSED):
        Instances.cat([instances(), Instances((1, 1))])
    with pytest.raises(ValueError, match="dict"):
        Instances.cat([Instances((1, 1), a={1: 2})] * 2)


def test_instances_fields_come_and_go():
    some = instances()
    some.labels = torch.zeros(3)
    assert some.has("labels") and some.get("labels") is some.labels
    some.remove("labels")
    assert not some.has("labels") and set(some.get_fields()) == {"scores", "names", "boxes"}
    with pytest.raises(AttributeError, match="labels"):
        _ = some.labels
    with pytest.raises(REFUSED, match="2"):
        some.labels = torch.zeros(2)


def test_instances_move_copy_and_pickle():
    some = instances()
    for other in (some.to("cpu"), copy.deepcopy(some), pickle.loads(pickle.dumps(some))):
        assert other is not some and other.names == some.names
        assert torch.equal(other.boxes.tensor, some.boxes.tensor)


def test_instances_without_fields_have_no_length_and_none_iterate():
    with pytest.raises((TypeError, NotImplementedError)):
        len(Instances((1, 1)))
    with pytest.raises((TypeError, NotImplementedError)):
        list(instances())


def test_instances_print_their_size_and_fields():
    text = str(Instances((5, 6), a=torch.arange(3)))
    assert text == (
        "Instances(num_instances=3, image_height=5, image_width=6, fields=[a: tensor([0, 1, 2])])"
    )


# ImageList


def test_image_list_pads_right_and_below_and_gives_the_images_back():
    tensors = [torch.rand(3, 4, 5), torch.rand(3, 6, 2)]
    images = ImageList.from_tensors(tensors, size_divisibility=4, pad_value=7)
    assert images.tensor.shape == (2, 3, 8, 8) and images.image_sizes == [(4, 5), (6, 2)]
    assert all(torch.equal(images[i], tensors[i]) for i in range(len(images)))
    assert (images.tensor[0, :, 4:] == 7).all() and (images.tensor[0, :, :, 5:] == 7).all()


@pytest.mark.parametrize(
    "divisor, constraints, expected",
    [
        (0, None, (6, 5)),
        (5, {}, (10, 5)),
        (0, {"square_size": 16}, (16, 16)),
        (5, {"square_size": 16, "size_divisibility": 8}, (16, 16)),
        (5, {"square_size": 0, "size_divisibility": 8}, (8, 8)),
    ],
)
def test_image_list_heeds_the_backbones_constraints(divisor, constraints, expected):
    tensors = [torch.ones(4, 5), torch.ones(6, 2)]
    images = ImageList.from_tensors(tensors, divisor, padding_constraints=constraints)
    assert images.tensor.shape == (2, *expected)


def test_image_list_keeps_dtype_and_labels():
    labels = [torch.full((2, 3), 9, dtype=torch.uint8), torch.full((3, 3), 8, dtype=torch.uint8)]
    padded = ImageList.from_tensors(labels, pad_value=255).tensor
    assert padded.dtype == torch.uint8 and padded[0, 2].tolist() == [255] * 3


def test_image_list_refuses_no_images_and_mixed_channels():
    with pytest.raises(REFUSED):
        ImageList.from_tensors([])
    with pytest.raises(REFUSED):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])


@embedded_only
def test_image_list_says_that_the_square_is_too_small():
    with pytest.raises(ValueError, match="6x5 does not fit the square of 4"):
        ImageList.from_tensors([torch.ones(3, 6, 5)], padding_constraints={"square_size": 4})
