"""Maps at other sizes."""

import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.modeling.results import resizing
from rankseg_d2.modeling.results.resizing import resize, resize_classes

ORDERS = {
    "by class": lambda maps: maps,
    "by pixel": lambda maps: maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "a part": lambda maps: F.pad(maps, (0, 3, 0, 2))[..., :-2, :-3],
    "from a transposed product": lambda maps: maps.flatten(2).mT.contiguous().mT.view_as(maps),
}


def class_maps(batch=2, classes=5):
    return torch.randn(batch, classes, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(24, 28), (13, 9), (3, 30), (6, 7)])
def test_class_maps_are_resized_bilinearly_whatever_their_order_in_memory(order, batch, size):
    maps = class_maps(batch)
    found = resize_classes(ORDERS[order](maps), size)
    expected = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)
    if size != maps.shape[-2:]:
        assert found.permute(0, 2, 3, 1).is_contiguous()
        assert found.equal(resize_classes(maps, size))  # to the bit


def test_gradients_are_those_of_a_plain_resize():
    maps = class_maps().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: resize_classes(maps, (9, 11)), maps)


@pytest.mark.parametrize("shape", [(1, 0, 6, 7), (0, 5, 6, 7)])
def test_without_a_class_or_an_image_the_result_is_empty(shape):
    assert resize_classes(torch.zeros(shape), (12, 14)).shape == (*shape[:2], 12, 14)


def test_too_many_values_for_this_order_on_gpus_are_resized_by_class(
    monkeypatch,
):
    sizes = []
    monkeypatch.setattr(resizing, "resize", lambda maps, size: sizes.append(size))
    classes, size = 2**13, (512, 512)
    resize_classes(torch.zeros(1, classes - 1, 1, 1, device="meta"), size)
    assert sizes == []
    resize_classes(torch.zeros(1, classes, 1, 1, device="meta"), size)
    assert sizes == [size]


def test_frames_are_resized_as_if_they_were_alone():
    maps = class_maps()
    together = resize(maps, (11, 20))
    for frame in range(maps.shape[1]):
        assert together[:, frame, None].equal(resize(maps[:, frame, None], (11, 20)))
