"""The parts of CondInst against plain loops."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.modeling.condinst.bank import (
    PATHS,
    DynamicBank,
    bank_inputs,
    split_kernels,
)
from rankseg_d2.modeling.condinst.branches import MaskBranch
from rankseg_d2.modeling.condinst.losses import dice_loss, mask_loss, overlap_loss
from rankseg_d2.modeling.condinst.maps import aligned_upsample, cell_centers, fit
from rankseg_d2.modeling.condinst.targets import NONE, assign, boxes_of, size_ranges

SIZES = [16.0, 32.0, 64.0, 128.0]


def grid(height=96, width=160, first=8):
    """Locations, levels and strides of five levels."""
    parts = []
    for level in range(5):
        stride = first * 2**level
        centers = cell_centers((-(-height // stride), -(-width // stride)), stride, "cpu")
        parts.append((centers, torch.full((len(centers),), level)))
    locations, levels = (torch.cat(part) for part in zip(*parts, strict=True))
    return locations, levels, first * 2**levels


def plain_assignment(location, stride, low, high, boxes, radius):
    """The object, the distances and the centerness of one location."""
    (x, y), best = location, None
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        sides = x - x0, y - y0, x1 - x, y1 - y
        is_near = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2)) < radius * stride
        if min(sides) > 0 and is_near and low <= max(sides) <= high:
            area = (x1 - x0) * (y1 - y0)
            if best is None or area < best[0]:
                left, top, right, bottom = sides
                shares = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
                best = area, number, sides, (shares[0] * shares[1]) ** 0.5
    return best[1:] if best else (NONE, (0, 0, 0, 0), 0)


def test_each_location_learns_what_a_loop_over_all_boxes_says():
    generator = torch.Generator().manual_seed(0)
    locations, levels, strides = grid()
    corners = torch.randint(-10, 100, (30, 2), generator=generator)  # some lie partly outside
    sides = torch.randint(0, 90, (30, 2), generator=generator)  # some have no area
    boxes = torch.cat([corners, corners + sides], 1).float()
    ranges = size_ranges(levels, SIZES)
    found = assign(locations, strides, ranges, boxes, 1.5)
    assert (found.objects != NONE).sum() > 20
    everything = zip(locations.tolist(), strides.tolist(), ranges.tolist(), strict=True)
    for i, (location, stride, (low, high)) in enumerate(everything):
        expected = plain_assignment(location, stride, low, high, boxes.tolist(), 1.5)
        assert found.objects[i] == expected[0]
        assert found.distances[i].tolist() == pytest.approx(expected[1])
        assert float(found.centerness[i]) == pytest.approx(expected[2], abs=1e-6)
    chosen = found.objects != NONE
    again = boxes_of(locations, found.distances)[chosen]
    torch.testing.assert_close(again, boxes[found.objects[chosen]])


def test_without_boxes_no_location_learns_an_object():
    locations, levels, strides = grid()
    found = assign(locations, strides, size_ranges(levels, SIZES), torch.zeros(0, 4), 1.5)
    assert (found.objects == NONE).all()
    assert not found.distances.any() and not found.centerness.any()


def test_a_level_learns_objects_of_its_size():
    assert size_ranges(torch.arange(5), SIZES).tolist() == [
        [0, 16], [16, 32], [32, 64], [64, 128], [128, float("inf")],
    ]  # fmt: skip


def test_kernels_are_cut_into_weights_and_biases_of_169_numbers():
    bank = DynamicBank(8)
    assert bank.num_parameters == 169
    kernels = torch.arange(2 * 169.0).view(2, 169)
    layers = split_kernels(kernels, bank.widths)
    assert [tuple(w.shape) for w, _ in layers] == [(2, 8, 10), (2, 8, 8), (2, 1, 8)]
    assert layers[0][0][1, 0].tolist() == list(range(169, 179))
    assert layers[2][1].tolist() == [[168], [337]]


def test_all_seven_paths_equal_convolutions_one_by_one():
    torch.manual_seed(0)
    bank = DynamicBank(3)
    n, kernels = 4, torch.randn(4, bank.num_parameters)
    inputs = torch.randn(n, 5, 6, 7)
    found = bank(inputs, kernels, tuple(PATHS))
    assert list(found) == list(PATHS) == list(bank.paths)
    digits = {"".join(path) for path in itertools.product("01", repeat=3)} - {"000"}
    assert set(PATHS) == digits
    assert [w for path, w in PATHS.items() if path.count("1") == 1] == [0.25] * 3
    layers = split_kernels(kernels, bank.widths)
    for path, i in itertools.product(PATHS, range(n)):
        x = inputs[i : i + 1]
        for depth, digit in enumerate(path):
            weight, bias = (part[i] for part in layers[depth])
            dynamic = F.conv2d(x, weight[..., None, None], bias)
            x = dynamic if digit == "1" else bank.static[depth](x)
            x = x if depth == 2 else x.relu()
        torch.testing.assert_close(found[path][i], x[0, 0])


def test_without_static_layers_there_is_one_path():
    bank = DynamicBank(3, with_static=False)
    assert bank.paths == {"111": 1.0} and not list(bank.parameters())
    empty = bank(torch.zeros(0, 5, 6, 7), torch.zeros(0, bank.num_parameters))
    assert empty["111"].shape == (0, 6, 7)


def test_coordinates_are_relative_to_the_location_and_its_scale():
    features = torch.randn(2, 3, 4, 5)
    locations, scales = torch.tensor([[20.0, 12.0], [4.0, 4.0]]), torch.tensor([64.0, 128.0])
    found = bank_inputs(features, cell_centers((4, 5), 8, "cpu"), locations, scales)
    assert torch.equal(found[:, 2:], features)
    for i, y, x in itertools.product(range(2), range(4), range(5)):
        expected = [(locations[i, 0] - (8 * x + 4)) / scales[i]]
        expected += [(locations[i, 1] - (8 * y + 4)) / scales[i]]
        assert found[i, :2, y, x].tolist() == pytest.approx(torch.stack(expected).tolist())


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_values_move_to_the_centers_of_their_cells(factor):
    maps = torch.rand(2, 3, 4, 5)
    large = aligned_upsample(maps, factor)
    assert large.shape == (2, 3, 4 * factor, 5 * factor)
    at = factor // 2
    torch.testing.assert_close(large[..., at::factor, at::factor], maps)
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    expected = ((torch.arange(5 * factor) - at) / factor).clamp(0, 4)
    torch.testing.assert_close(aligned_upsample(ramp, factor)[0, 0, 0], expected)
    assert aligned_upsample(maps[:0], factor).shape == (0, 3, 4 * factor, 5 * factor)


def test_maps_are_cut_or_padded():
    maps = torch.ones(1, 3, 4)
    assert fit(maps, (2, 6)).shape == (1, 2, 6)
    assert fit(maps, (2, 6)).sum() == 8


def test_levels_of_odd_sizes_are_added():
    branch = MaskBranch(8, width=4, mask_dim=2)
    maps = [torch.rand(2, 8, *size) for size in ((5, 7), (3, 4), (2, 2))]
    assert branch(maps).shape == (2, 2, 5, 7)


def test_a_level_of_one_cell_trains_by_running_statistics():
    branch = MaskBranch(8, width=4, mask_dim=2).train()
    sizes = ((4, 4), (2, 2), (1, 1))  # of one image of 32 x 32 pixels
    branch([torch.rand(1, 8, *size) for size in sizes]).sum().backward()
    assert all(parameter.grad is not None for parameter in branch.parameters())
    norms = [layer[1] for layer in branch.refine]
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 0]
    x = torch.rand(1, 4, 1, 1)
    torch.testing.assert_close(norms[2](x), norms[2].eval()(x))


def test_dice_has_squares_below():
    x, y = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    for one, p, q in zip(dice_loss(x, y), x, y.float(), strict=True):
        assert float(one) == pytest.approx(
            float(1 - 2 * (p * q).sum() / ((p**2).sum() + (q**2).sum())), abs=1e-5
        )
    perfect = dice_loss(y.float(), y)
    assert perfect.abs().max() < 1e-5


def test_paths_are_weighted():
    masks = torch.rand(3, 4, 5) > 0.5
    logits = {path: torch.randn(3, 4, 5) for path in PATHS}
    expected = sum(
        weight * dice_loss(logits[path].sigmoid(), masks).mean() for path, weight in PATHS.items()
    )
    torch.testing.assert_close(mask_loss(logits, masks, PATHS), expected)
    nothing = {path: one[:0] for path, one in logits.items()}
    assert mask_loss(nothing, masks[:0], PATHS) == 0


def test_objects_of_an_image_compete_for_its_pixels():
    torch.manual_seed(0)
    images, objects = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 5, 3])
    logits, masks = torch.randn(6, 4, 5), torch.rand(6, 4, 5) > 0.5
    means = torch.stack([logits[0], logits[1:3].mean(0)])  # image 0: objects 0 and 1
    second = torch.stack([logits[5], logits[4]])  # image 2: objects 3 and 5
    expected = [dice_loss(means.softmax(0), masks[:2])]  # image 1 has one object
    expected += [dice_loss(second.softmax(0), masks[[3, 5]])]
    found = overlap_loss(logits, images, objects, masks)
    torch.testing.assert_close(found, torch.cat(expected).mean())
    alone = overlap_loss(logits[3:4].requires_grad_(), images[3:4], objects[3:4], masks)
    assert alone == 0 and alone.requires_grad
