import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rankseg_d2.ops import ms_deform_attn as package
from rankseg_d2.ops.ms_deform_attn import backends, ms_deform_attn

GOLDEN = Path(__file__).parent / "data" / "msdeformattn.npz"
SHAPES = ((3, 5), (2, 2), (1, 1))


def make(batch=2, queries=6, heads=2, channels=3, points=2, dtype=torch.float64, seed=0):
    """Value, locations (a third of them outside), weights."""
    random = torch.Generator().manual_seed(seed)
    area = sum(h * w for h, w in SHAPES)
    value = torch.randn(batch, area, heads, channels, generator=random, dtype=dtype)
    size = (batch, queries, heads, len(SHAPES), points)
    locations = torch.rand(*size, 2, generator=random, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(size, generator=random, dtype=dtype)
    return value, locations, weights


def by_loops(value, shapes, locations, weights):
    """The definition, number by number, from the sum over the four neighbours of each point."""
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    out = torch.zeros(batch, queries, heads, channels, dtype=value.dtype)
    for b, q, m, i, p in np.ndindex(batch, queries, heads, len(shapes), points):
        h, w = shapes[i]
        start = sum(a * c for a, c in shapes[:i])
        x = locations[b, q, m, i, p, 0].item() * w - 0.5
        y = locations[b, q, m, i, p, 1].item() * h - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < h and 0 <= column < w:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    pixel = value[b, start + row * w + column, m]
                    out[b, q, m] += weights[b, q, m, i, p] * share * pixel
    return out.flatten(2)


def test_golden_output_and_gradients():
    golden = np.load(GOLDEN)
    value = (torch.from_numpy(golden["value_int16"]).double() / 64).requires_grad_()
    shapes = [tuple(shape) for shape in golden["spatial_shapes"].tolist()]
    locations = torch.from_numpy(golden["sampling_locations"]).double().requires_grad_()
    logits = torch.from_numpy(golden["attention_logits"]).double()
    weights = logits.softmax(-1).view(locations.shape[:-1]).requires_grad_()

    out = ms_deform_attn(value, shapes, locations, weights)
    out.backward(torch.from_numpy(golden["grad_output"]).double())

    def close(ours, name):
        torch.testing.assert_close(ours, torch.from_numpy(golden[name]), rtol=1e-9, atol=1e-9)

    close(out.detach(), "output")
    close(value.grad[..., ::4], "grad_value_ch4")
    close(value.grad.norm(dim=(1, 3)), "grad_value_norm_per_head")
    close(locations.grad, "grad_sampling_locations")
    close(weights.grad, "grad_attention_weights")


@pytest.mark.parametrize("points", [1, 3])
def test_equals_the_definition_computed_by_loops(points):
    value, locations, weights = make(points=points)
    expected = by_loops(value, SHAPES, locations, weights)
    torch.testing.assert_close(ms_deform_attn(value, SHAPES, locations, weights), expected)


def test_gradcheck():
    value, locations, weights = make(batch=1, queries=2, channels=2)
    for tensor in (value, locations, weights):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, x, a: ms_deform_attn(v, SHAPES, x, a), (value, locations, weights)
    )


def test_points_far_outside_give_zero_and_no_gradient():
    value, locations, weights = make()
    locations = torch.where(locations < 0.5, locations - 3, locations + 3).requires_grad_()
    value.requires_grad_()
    out = ms_deform_attn(value, SHAPES, locations, weights)
    out.sum().backward()
    assert out.abs().max() == value.grad.abs().max() == locations.grad.abs().max() == 0


def test_non_contiguous_inputs_give_the_same():
    value, locations, weights = make()
    expected = ms_deform_attn(value, SHAPES, locations, weights)
    strided = [
        value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        SHAPES,
        locations.flip(-1).contiguous().flip(-1).transpose(1, 4).contiguous().transpose(1, 4),
        weights.repeat_interleave(2, -1)[..., ::2],
    ]
    assert not any(t.is_contiguous() for t in (strided[0], strided[2], strided[3]))
    torch.testing.assert_close(ms_deform_attn(*strided), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_types_are_summed_in_float32(dtype, rounding):
    value, locations, weights = make(queries=20, points=8, dtype=torch.float32)
    value, weights = value.to(dtype), weights.to(dtype)
    out = ms_deform_attn(value, SHAPES, locations, weights)
    exact = ms_deform_attn(value.double(), SHAPES, locations.double(), weights.double())
    assert out.dtype == dtype
    # One rounding, that of the result.
    assert ((out.double() - exact).abs() <= rounding * exact.abs() + 1e-5).all()


def test_autocast_does_not_lower_the_precision():
    value, locations, weights = make(dtype=torch.float32)
    expected = ms_deform_attn(value, SHAPES, locations, weights)
    with torch.autocast("cpu", torch.bfloat16):
        out = ms_deform_attn(value, SHAPES, locations, weights)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize("empty", ["batch", "queries"])
def test_nothing_in_gives_nothing_out(empty):
    value, locations, weights = make(**{empty: 0})
    out = ms_deform_attn(value.requires_grad_(), SHAPES, locations, weights)
    out.sum().backward()
    assert out.shape == (*locations.shape[:2], 6)
    assert value.grad.abs().sum() == 0


def test_shapes_as_a_tensor_give_the_same():
    value, locations, weights = make()
    out = ms_deform_attn(value, torch.tensor(SHAPES), locations, weights)
    torch.testing.assert_close(out, ms_deform_attn(value, SHAPES, locations, weights))


def test_compiles_without_a_graph_break():
    value, locations, weights = make()
    compiled = torch.compile(
        lambda v, x, a: ms_deform_attn(v, SHAPES, x, a), fullgraph=True, backend="aot_eager"
    )
    expected = ms_deform_attn(value, SHAPES, locations, weights)
    torch.testing.assert_close(compiled(value, locations, weights), expected)


@pytest.mark.gpu
def test_gpu_equals_cpu():
    value, locations, weights = make()
    out = ms_deform_attn(value.cuda(), SHAPES, locations.cuda(), weights.cuda())
    torch.testing.assert_close(out.cpu(), ms_deform_attn(value, SHAPES, locations, weights))


class Broken:
    name = "broken"

    def why_not(self, inputs):
        return "no compiler made it"


def test_auto_skips_a_backend_that_cannot_and_a_forced_one_says_why(monkeypatch):
    value, locations, weights = make()
    expected = ms_deform_attn(value, SHAPES, locations, weights, backend="reference")
    monkeypatch.setattr(package, "BACKENDS", (Broken(), *package.BACKENDS))
    out = ms_deform_attn(value, SHAPES, locations, weights)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert backends() == [("broken", "no compiler made it"), ("reference", None)]
    with pytest.raises(RuntimeError, match="'broken' cannot run: no compiler made it; .*auto"):
        ms_deform_attn(value, SHAPES, locations, weights, backend="broken")


def test_unknown_backend_names_the_near_one():
    with pytest.raises(KeyError, match="ms_deform_attn: 'referense'.*nearest .*reference"):
        ms_deform_attn(*_inputs(), backend="referense")


def _inputs(**changes):
    value, locations, weights = make()
    parts = {"value": value, "shapes": SHAPES, "locations": locations, "weights": weights}
    return (parts | changes).values()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": torch.zeros(2, 20, 6)}, r"value has shape \(2, 20, 6\), expected \(B, S"),
        ({"shapes": ((3, 5), (2, 2))}, r"S = 20 positions, but spatial_shapes .* have 19"),
        ({"shapes": ((4, 5),)}, r"sampling_locations .*L, P, 2\) = \(2, 6, 2, 1, 2, 2\)"),
        ({"locations": torch.zeros(2, 6, 2, 3, 2)}, r"sampling_locations has shape .*expected"),
        ({"locations": torch.zeros(1, 6, 2, 3, 2, 2)}, r"sampling_locations has shape \(1, 6"),
        ({"weights": torch.zeros(2, 6, 2, 3, 4)}, r"attention_weights .*= \(2, 6, 2, 3, 2\)"),
        ({"value": torch.zeros(2, 20, 2, 3).long()}, r"value has dtype torch.int64, expected"),
        ({"weights": torch.zeros(2, 6, 2, 3, 2, device="meta")}, "attention_weights is on meta"),
    ],
)
def test_wrong_inputs_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(*_inputs(**changes))
