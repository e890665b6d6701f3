import numpy as np
import pytest
import torch
from detectron2 import structures as real
from detectron2.structures import boxes as real_boxes
from detectron2.structures import masks as real_masks

from rankseg_d2._detectron2 import structures as ours
from rankseg_d2._detectron2.structures import boxes as our_boxes
from rankseg_d2._detectron2.structures import masks as our_masks

SEEDS = range(4)


def random_boxes(rng, count, limit=60.0):
    return torch.from_numpy(np.sort(rng.uniform(-5, limit, (count, 2, 2)), axis=1)).flatten(1)


def random_polygons(rng, count):
    """One to three polygons of 3 to 8 corners for each object."""
    return [
        [rng.uniform(0, 40, 2 * rng.integers(3, 9)) for _ in range(rng.integers(1, 4))]
        for _ in range(count)
    ]


def same(value, expected):
    assert type(value).__name__ == type(expected).__name__
    if hasattr(expected, "tensor"):
        value, expected = value.tensor, expected.tensor
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected))
    else:
        assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("box", [[1.1, 2.2, 3.3, 4.4], (1, 2, 30, 40), "array", "tensor", "none"])
@pytest.mark.parametrize("modes", [(0, 1), (1, 0), (1, 1), (2, 2)])
def test_box_mode_converts_alike(box, modes):
    kinds = {
        "array": np.array([[1.1, 2.2, 3.3, 4.4]]),
        "tensor": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]),
        "none": torch.zeros(0, 4),
    }
    box = kinds.get(box, box) if isinstance(box, str) else box
    same(
        ours.BoxMode.convert(box, *map(ours.BoxMode, modes)),
        real.BoxMode.convert(box, *map(real.BoxMode, modes)),
    )


def test_box_modes_have_the_same_numbers():
    assert {m.name: int(m) for m in ours.BoxMode} == {m.name: int(m) for m in real.BoxMode}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["pairwise_iou", "pairwise_ioa", "pairwise_intersection"])
def test_overlaps_are_alike(name, seed):
    rng = np.random.default_rng(seed)
    first, second = random_boxes(rng, 9), random_boxes(rng, 9)
    value = getattr(our_boxes, name)(ours.Boxes(first), ours.Boxes(second))
    same(value, getattr(real_boxes, name)(real.Boxes(first), real.Boxes(second)))


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_methods_are_alike(seed):
    tensor = random_boxes(np.random.default_rng(seed), 7)
    first, second = ours.Boxes(tensor), real.Boxes(tensor)
    for call in (
        lambda b: b.area(),
        lambda b: b.get_centers(),
        lambda b: b.nonempty(10.0),
        lambda b: b[2],
        lambda b: b[-3:],
        lambda b: b[torch.tensor([0, 5])],
        lambda b: b[b.area() > 100],
        lambda b: type(b).cat([b, b[:2]]),
        lambda b: type(b).cat([]),
        lambda b: b.clip((30, 40)) or b,
        lambda b: b.scale(0.3, 1.7) or b,
        lambda b: b.clone(),
        repr,
        len,
    ):
        same(call(first), call(second))


@pytest.mark.parametrize("seed", SEEDS)
def test_bit_masks_methods_are_alike(seed):
    rng = np.random.default_rng(seed)
    array = rng.uniform(size=(6, 30, 40)) > 0.99
    array[3] = False
    first, second = ours.BitMasks(array), real.BitMasks(array)
    for call in (
        lambda m: m.nonempty(),
        lambda m: m.get_bounding_boxes(),
        lambda m: m[1],
        lambda m: m[-2:],
        lambda m: m[torch.tensor([0, 4])],
        lambda m: m[m.nonempty()],
        lambda m: type(m).cat([m, m]),
        lambda m: type(m).from_polygon_masks([[np.array([1.0, 1, 9, 2, 5, 8])], []], 12, 11),
        repr,
        lambda m: m.image_size,
    ):
        same(call(first), call(second))


@pytest.mark.parametrize("seed", SEEDS)
def test_polygon_masks_methods_are_alike(seed):
    rng = np.random.default_rng(seed)
    polygons = random_polygons(rng, 5)
    polygons[2] = []
    first, second = ours.PolygonMasks(polygons), real.PolygonMasks(polygons)

    def values(masks):
        return [[polygon.tolist() for polygon in of_one] for of_one in masks]

    for call in (
        lambda m: m.nonempty(),
        lambda m: m.area(),
        lambda m: m.get_bounding_boxes(),
        lambda m: values(m[1]),
        lambda m: values(m[1:]),
        lambda m: values(m[[3, 0]]),
        lambda m: values(m[torch.tensor([4, 4])]),
        lambda m: values(m[m.nonempty()]),
        lambda m: values(type(m).cat([m, m])),
        repr,
    ):
        same(call(first), call(second))
    same(
        ours.BitMasks.from_polygon_masks(first, 40, 40),
        real.BitMasks.from_polygon_masks(second, 40, 40),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_polygons_are_drawn_alike(seed):
    rng = np.random.default_rng(seed)
    polygons = random_polygons(rng, 1)[0]
    for name, arguments in (
        ("polygons_to_bitmask", (polygons, 40, 37)),
        ("polygon_area", (polygons[0][0::2], polygons[0][1::2])),
    ):
        same(getattr(our_masks, name)(*arguments), getattr(real_masks, name)(*arguments))


def test_instances_are_alike():
    rng = np.random.default_rng(0)
    boxes, polygons = random_boxes(rng, 4), random_polygons(rng, 4)

    def make(module):
        instances = module.Instances((30, 40), scores=torch.arange(4.0), names=list("abcd"))
        instances.gt_boxes = module.Boxes(boxes)
        instances.gt_masks = module.PolygonMasks(polygons)
        return instances

    first, second = make(ours), make(real)
    for call in (
        lambda i: i,
        lambda i: i[2],
        lambda i: i[-1],
        lambda i: i[1:3],
        lambda i: type(i).cat([i, i[:1]]),
        lambda i: i.to("cpu"),
        lambda i: sorted(i.get_fields()),
    ):
        assert str(call(first)) == str(call(second))
    first.remove("names"), second.remove("names")
    for item in (torch.tensor([True, False, True, False]), torch.tensor([3, 0])):
        assert str(first[item]) == str(second[item])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "divisor, constraints",
    [(0, None), (32, None), (0, {"square_size": 64}), (32, {"size_divisibility": 7}), (4, {})],
)
def test_image_lists_are_alike(seed, divisor, constraints):
    sizes = np.random.default_rng(seed).integers(10, 60, (3, 2)).tolist()
    tensors = [torch.rand(3, *size) for size in sizes]
    first, second = (
        module.ImageList.from_tensors(tensors, divisor, 5.0, padding_constraints=constraints)
        for module in (ours, real)
    )
    assert torch.equal(first.tensor, second.tensor) and first.image_sizes == second.image_sizes
    assert all(torch.equal(first[i], second[i]) for i in range(3))
