"""Each backend of multi-scale deformable attention against the definition."""

import math

import numpy as np
import pytest
import torch
from support.deform import ALL, COMPILED, OPS, SHAPES, call, make, with_grads
from support.paths import GOLDEN as FILES

from rankseg_d2.ops.ms_deform_attn import ms_deform_attn

GOLDEN = FILES / "msdeformattn.npz"
ODD_SHAPES = ((7, 5), (1, 9), (4, 1), (1, 1))


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


@pytest.mark.parametrize("backend", ALL)
def test_golden_output_and_gradients(backend):
    golden = np.load(GOLDEN)
    value = torch.from_numpy(golden["value_int16"]).double() / 64
    shapes = [tuple(shape) for shape in golden["spatial_shapes"].tolist()]
    locations = torch.from_numpy(golden["sampling_locations"]).double()
    logits = torch.from_numpy(golden["attention_logits"]).double()
    weights = logits.softmax(-1).view(locations.shape[:-1])
    tensors = [tensor.requires_grad_() for tensor in (value, locations, weights)]

    out = call("plain", tensors, shapes, backend)
    out.backward(torch.from_numpy(golden["grad_output"]).double())

    def close(ours, name):
        torch.testing.assert_close(ours, torch.from_numpy(golden[name]), rtol=1e-9, atol=1e-9)

    close(out.detach(), "output")
    close(value.grad[..., ::4], "grad_value_ch4")
    close(value.grad.norm(dim=(1, 3)), "grad_value_norm_per_head")
    close(locations.grad, "grad_sampling_locations")
    close(weights.grad, "grad_attention_weights")


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("backend", ALL)
def test_equals_the_definition_computed_by_loops(backend, points):
    tensors = make(points=points)
    value, locations, weights = tensors
    expected = by_loops(value, SHAPES, locations, weights)
    torch.testing.assert_close(call("plain", tensors, backend=backend), expected)


def test_fused_is_the_plain_one_after_softmax_and_offsets():
    value, references, offsets, logits = make("fused", points=3)
    sizes = torch.tensor([(w, h) for h, w in SHAPES])
    locations = torch.stack(
        [references[:, :, None, i, None] + offsets[:, :, :, i] / sizes[i] for i in range(3)], 3
    )
    weights = (logits.exp() / logits.exp().sum((-1, -2), keepdim=True)).contiguous()
    expected = by_loops(value, SHAPES, locations, weights)
    out = call("fused", [value, references, offsets, logits], backend="reference")
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_gradcheck(backend, op):
    tensors = [tensor.requires_grad_() for tensor in make(op, batch=1, queries=2, channels=2)]
    order = 1e-12 if backend == "cuda" else 0  # its atomics may add in another one the next time
    assert torch.autograd.gradcheck(
        lambda *t: call(op, t, backend=backend), tensors, nondet_tol=order
    )


SIZES = [  # channels, points, queries, heads, batch
    (32, 4, 50, 2, 2),
    (32, 4, 16, 1, 1),
    (32, 3, 17, 2, 1),
    (1, 4, 1, 3, 1),
    (3, 5, 15, 1, 3),
    (16, 1, 33, 2, 1),
    (33, 4, 18, 3, 1),
    (64, 2, 20, 1, 2),
    (100, 4, 5, 2, 1),
    (32, 4, 700, 3, 1),  # more than one thread's share
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", COMPILED)
def test_output_and_gradients_of_any_size(backend, op, size, dtype):
    names = ("channels", "points", "queries", "heads", "batch")
    tensors = make(op, **dict(zip(names, size, strict=True)), shapes=ODD_SHAPES, dtype=dtype)
    ours = with_grads(op, tensors, ODD_SHAPES, backend)
    exact = with_grads(op, [t.double() for t in tensors], ODD_SHAPES, "reference")
    tolerance = {torch.float64: 1e-10, torch.float32: 2e-5}[dtype]
    for our, right in zip(ours, exact, strict=True):
        torch.testing.assert_close(our, right, rtol=tolerance, atol=tolerance * 20)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("channels", [32, 5])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_half_types_are_summed_in_float32(backend, op, channels, dtype, rounding):
    """So that output and gradients are rounded once, whatever the number of summands."""
    value, *points = make(op, queries=20, points=8, channels=channels, dtype=torch.float32)
    tensors = [value.to(dtype), *points]
    assert call(op, tensors, backend=backend).dtype == dtype
    ours = with_grads(op, tensors, backend=backend)
    exact = with_grads(op, [tensor.double() for tensor in tensors], backend="reference")
    for our, right, eps in zip(ours, exact, (rounding, rounding, 1e-4, 1e-4, 1e-4), strict=False):
        assert ((our - right).abs() <= eps * right.abs() + 1e-3 * rounding + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ALL)
def test_all_in_half_precision(backend, dtype):
    tensors = [tensor.to(dtype) for tensor in make(dtype=torch.float32)]
    exact = call("plain", [tensor.double() for tensor in tensors], backend="reference")
    out = call("plain", tensors, backend=backend)
    torch.testing.assert_close(out, exact.to(dtype))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_points_far_outside_give_zero_and_no_gradient(backend, op):
    tensors = make(op)
    positions = tensors[-2]
    for far in (3.0, 1e4, 1e9, 1e30):
        tensors[-2] = torch.where(positions < 0.5, positions - far * 9, positions + far * 9)
        out, grad_value, *grads = with_grads(op, tensors, backend=backend)
        assert out.abs().max() == grad_value.abs().max() == grads[-2].abs().max() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("backend", ALL)
def test_what_is_not_finite_spoils_its_own_query_and_head_only(backend, bad):
    value, locations, weights = make(channels=32, points=4, queries=40, dtype=torch.float32)
    right = call("plain", [value, locations, weights], backend=backend)
    locations[1, 3, 0, 1, 2, 0] = bad
    out, *grads = with_grads("plain", [value, locations, weights], backend=backend)
    spoilt = torch.zeros_like(right, dtype=torch.bool)
    spoilt[1, 3, :32] = True
    assert (out.isnan() == spoilt).all()
    torch.testing.assert_close(out[~spoilt], right[~spoilt].double())
    assert not grads[0][0].isnan().any()


@pytest.mark.parametrize("backend", ALL)
def test_an_infinite_value_is_not_used_by_points_outside(backend):
    value, locations, weights = make(channels=32, points=4)
    value[:, 0] = math.inf
    locations[...] = 7.0
    assert (call("plain", [value, locations, weights], backend=backend) == 0).all()


@pytest.mark.parametrize("backend", ALL)
def test_logits_of_any_size_give_weights(backend):
    tensors = make("fused", points=4, dtype=torch.float32)
    tensors[-1][..., 0] = 1e4
    tensors[-1][..., 1] = -math.inf
    tensors[-1][..., 2] = -95.0
    exact = call("fused", [tensor.double() for tensor in tensors], backend="reference")
    out = call("fused", tensors, backend=backend)
    torch.testing.assert_close(out, exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_non_contiguous_inputs_give_the_same(backend, op):
    tensors = make(op)
    strided = [tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in tensors]
    strided[-1] = tensors[-1].repeat_interleave(2, -1)[..., ::2]
    assert not any(tensor.is_contiguous() for tensor in strided)
    expected = with_grads(op, tensors, backend=backend)
    for our, right in zip(with_grads(op, strided, backend=backend), expected, strict=True):
        torch.testing.assert_close(our, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("empty", ["batch", "queries", "points", "channels"])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_nothing_in_gives_nothing_out(backend, op, empty):
    tensors = [tensor.requires_grad_() for tensor in make(op, **{empty: 0})]
    out = call(op, tensors, backend=backend)
    out.sum().backward()
    value, queries = tensors[0], tensors[-1].shape[1]
    assert out.shape == (len(value), queries, value.shape[2] * value.shape[3])
    assert out.abs().sum() == 0
    assert all(tensor.grad.abs().sum() == 0 for tensor in tensors)


@pytest.fixture
def memory_is_nan():
    """Every new tensor is filled with NaN until someone writes to it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    before, torch.utils.deterministic.fill_uninitialized_memory = (
        torch.utils.deterministic.fill_uninitialized_memory,
        True,
    )
    assert torch.empty(3).isnan().all()
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [32, 5])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", COMPILED)
def test_every_output_is_written_and_nothing_else_is_read(
    memory_is_nan, backend, op, channels, dtype
):
    value, *points = make(op, queries=37, points=4, channels=channels, shapes=ODD_SHAPES)
    tensors = [value.to(dtype), *(t if dtype == torch.float64 else t.float() for t in points)]
    ours = with_grads(op, tensors, ODD_SHAPES, backend)
    assert not any(tensor.isnan().any() for tensor in ours)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", [COMPILED[0]])
def test_the_cpu_gives_the_same_bits_with_any_number_of_threads(backend, op):
    tensors = make(op, queries=900, heads=3, channels=32, points=4, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(with_grads(op, tensors, backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_reference_is_found_by_name():
    tensors = make()
    out = ms_deform_attn(tensors[0], SHAPES, *tensors[1:], backend="reference")
    torch.testing.assert_close(out, call("plain", tensors, backend="reference"), rtol=0, atol=0)
