"""The function: its choice of a backend, its errors, and its place in PyTorch."""

import copy

import pytest
import torch
from support.deform import ALL, COMPILED, OPS, SHAPES, WHY_NOT, call, make, with_grads

from rankseg_d2.ops import library
from rankseg_d2.ops import ms_deform_attn as package
from rankseg_d2.ops.ms_deform_attn import backends, ms_deform_attn, ms_deform_attn_fused


@pytest.mark.parametrize("backend", ALL)
def test_autocast_does_not_lower_the_precision(backend):
    tensors = make(dtype=torch.float32)
    expected = call("plain", tensors, backend=backend)
    with torch.autocast("cuda" if backend == "cuda" else "cpu", torch.bfloat16):
        out = call("plain", tensors, backend=backend)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ALL)
def test_trains_under_autocast(backend):
    """Where linear layers give bfloat16; coordinates stay float32."""
    value, *points = make("fused", channels=4, dtype=torch.float32)
    projection = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = call("fused", [projection(value), *points], backend=backend)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    exact = copy.deepcopy(projection).double()
    exact.zero_grad()
    points = [tensor.double() for tensor in points]
    call("fused", [exact(value.double()), *points], backend="reference").square().sum().backward()
    error = (projection.weight.grad - exact.weight.grad).norm() / exact.weight.grad.norm()
    assert error < 0.02


@pytest.mark.parametrize("shapes", [torch.tensor(SHAPES), torch.tensor(SHAPES).numpy()])
def test_shapes_as_a_tensor_or_array_give_the_same(shapes):
    value, *points = make()
    out = ms_deform_attn(value, shapes, *points)
    torch.testing.assert_close(out, ms_deform_attn(value, SHAPES, *points))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ALL)
def test_compiles_without_a_graph_break(backend, op):
    tensors = make(op)
    expected = with_grads(op, tensors, backend=backend)

    def run(*tensors):
        return call(op, tensors, backend=backend)

    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out = compiled_run(*leaves)
    pattern = torch.arange(out.numel()).view(out.shape) % 7 - 3
    out.backward(pattern.to(out.dtype))
    for our, right in zip((out, *(t.grad for t in leaves)), expected, strict=True):
        torch.testing.assert_close(our.detach(), right)


@pytest.mark.parametrize("backend", COMPILED)
def test_one_graph_serves_images_of_any_size(backend):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=count)
    def run(maps, locations, weights):
        shapes = [tuple(level.shape[1:3]) for level in maps]
        value = torch.cat([level.flatten(1, 2) for level in maps], 1)
        return ms_deform_attn(value, shapes, locations, weights, backend=backend)

    for sizes in ([(9, 5), (4, 11)], [(12, 7), (8, 10)], [(8, 15), (4, 13)]):
        value, *points = make(shapes=sizes)
        if backend == "cuda":
            value, *points = (tensor.cuda() for tensor in (value, *points))
        parts = value.split([h * w for h, w in sizes], 1)
        maps = [part.unflatten(1, size) for part, size in zip(parts, sizes, strict=True)]
        expected = call("plain", [value, *points], sizes, backend)
        torch.testing.assert_close(run(maps, *points), expected)
    assert len(graphs) == 1


class Layer(torch.nn.Module):
    def __init__(self, backend):
        super().__init__()
        self.backend = backend

    def forward(self, value, references, offsets, logits):
        return ms_deform_attn_fused(value, SHAPES, references, offsets, logits, self.backend)


@pytest.mark.parametrize("backend", ALL)
def test_exports(backend):
    tensors = make("fused")
    if backend == "cuda":
        tensors = [tensor.cuda() for tensor in tensors]
    layer = Layer(backend)
    batch = torch.export.Dim("batch", min=2, max=64)
    dynamic = ({0: batch}, {0: batch}, {0: batch}, {0: batch})
    program = torch.export.export(layer, tuple(tensors), dynamic_shapes=dynamic)
    names = [str(node.target) for node in program.graph.nodes]
    assert (backend == "reference") == (not any("rankseg_d2" in name for name in names))
    more = [torch.cat([tensor, tensor.flip(0)]) for tensor in tensors]
    torch.testing.assert_close(program.module()(*more), layer(*more))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", COMPILED)
def test_is_a_good_custom_op(backend, op, dtype):
    value, *points = make(op)
    points_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = [value.to(dtype), *(tensor.to(points_dtype) for tensor in points)]
    if backend == "cuda":
        tensors = [tensor.cuda() for tensor in tensors]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    value, *points = tensors
    sizes = [size for shape in SHAPES for size in shape]
    fused = {"plain": "", "fused": "_fused"}[op]
    forward = getattr(torch.ops.rankseg_d2, f"ms_deform_attn{fused}_forward").default
    torch.library.opcheck(forward, (value, sizes, *points))
    backward = getattr(torch.ops.rankseg_d2, f"ms_deform_attn{fused}_backward").default
    tensors = [tensor.detach() for tensor in tensors]
    value, *points = tensors
    grad = torch.ones_like(forward(value, sizes, *points))
    torch.library.opcheck(backward, (grad, value, sizes, *points))


@pytest.mark.parametrize("backend", COMPILED)
def test_a_second_derivative_is_refused(backend):
    value, *points = make()
    out = call("plain", [value.requires_grad_(), *points], backend=backend)
    (grad,) = torch.autograd.grad(out.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="ms_deform_attn has no second derivative"):
        grad.sum().backward()


class Broken:
    name = "broken"

    def why_not(self, inputs):
        return "no compiler made it"


def test_auto_skips_a_backend_that_cannot_and_a_forced_one_says_why(monkeypatch):
    value, *points = make()
    expected = ms_deform_attn(value, SHAPES, *points)
    monkeypatch.setattr(package, "BACKENDS", (Broken(), *package.BACKENDS))
    out = ms_deform_attn(value, SHAPES, *points)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert backends()[0] == ("broken", "no compiler made it")
    assert [state.name for state in backends()] == ["broken", "cuda", "cpu", "reference"]
    with pytest.raises(RuntimeError, match="'broken' cannot run: no compiler made it; .*auto"):
        ms_deform_attn(value, SHAPES, *points, backend="broken")


@pytest.mark.parametrize("backend", [name for name, reason in WHY_NOT.items() if reason])
def test_a_backend_that_cannot_run_here_says_why(backend):
    value, *points = make()
    with pytest.raises(RuntimeError, match=f"backend '{backend}' cannot run: "):
        ms_deform_attn(value, SHAPES, *points, backend=backend)


@pytest.mark.skipif(library.WHY_NOT is not None, reason=str(library.WHY_NOT))
def test_the_cpu_backend_refuses_other_devices_and_auto_finds_one_that_can():
    tensors = [tensor.to("meta") for tensor in make()]
    with pytest.raises(RuntimeError, match="'cpu' cannot run: value is on meta, not on the CPU"):
        call("plain", tensors, backend="cpu")
    assert call("plain", tensors).shape == (2, 6, 6)


def test_unknown_backend_names_the_near_one():
    with pytest.raises(KeyError, match="ms_deform_attn: 'referense'.*nearest .*reference"):
        call("plain", make(), backend="referense")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": torch.zeros(2, 20, 6)}, r"value has shape \(2, 20, 6\), expected \(B, S"),
        ({"shapes": ((3, 5), (2, 2))}, r"S = 20 positions, but spatial_shapes .* have 19"),
        ({"shapes": ((3, 5), (0, 2))}, r"spatial_shapes must be positive, got .*\(0, 2\)"),
        ({"shapes": (3, 5), "value": torch.zeros(2, 15, 2, 3)}, "must be pairs"),
        ({"shapes": 20}, r"spatial_shapes must be pairs \(h, w\), got 20"),
        ({"value": torch.zeros(2, 20, 2, 3).numpy()}, "value must be a tensor, got .*ndarray"),
        ({"weights": None}, "attention_weights must be a tensor, got .*NoneType"),
        ({"shapes": ((4, 5),)}, r"sampling_locations .*L, P, 2\) = \(2, 6, 2, 1, 2, 2\)"),
        ({"locations": torch.zeros(2, 6, 2, 3, 2)}, r"sampling_locations has shape .*expected"),
        ({"locations": torch.zeros(1, 6, 2, 3, 2, 2)}, r"sampling_locations has shape \(1, 6"),
        ({"weights": torch.zeros(2, 6, 2, 3, 4)}, r"attention_weights .*= \(2, 6, 2, 3, 2\)"),
        ({"value": torch.zeros(2, 20, 2, 3).long()}, r"value has dtype torch.int64, expected"),
        ({"weights": torch.zeros(2, 6, 2, 3, 2, device="meta")}, "attention_weights is on meta"),
    ],
)
def test_wrong_inputs_are_named(changes, message):
    value, locations, weights = make()
    parts = {"value": value, "shapes": SHAPES, "locations": locations, "weights": weights}
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(*(parts | changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": torch.zeros(2, 6, 4, 2)}, r"reference_points has shape \(2, 6, 4, 2\), .*"),
        ({"offsets": torch.zeros(2, 5, 2, 3, 2, 2)}, r"offsets has .*= \(2, 6, 2, 3, 2, 2\)"),
        ({"logits": torch.zeros(2, 6, 2, 6)}, r"logits has .* expected \(B, Q, M, L, P\)"),
        ({"logits": torch.zeros(2, 6, 2, 3, 2).int()}, "logits has dtype torch.int32"),
    ],
)
def test_wrong_inputs_of_the_fused_one_are_named(changes, message):
    value, references, offsets, logits = make("fused")
    parts = {"references": references, "offsets": offsets, "logits": logits} | changes
    with pytest.raises(ValueError, match=message):
        ms_deform_attn_fused(value, SHAPES, *parts.values())


@pytest.mark.parametrize("backend", COMPILED)
def test_the_op_itself_checks_what_could_lead_it_outside_of_memory(backend):
    value, locations, weights = make(dtype=torch.float32)
    op = torch.ops.rankseg_d2.ms_deform_attn_forward
    sizes = [size for shape in SHAPES for size in shape]
    device = "cuda" if backend == "cuda" else "cpu"
    wrong = [
        (value[:, :-1], sizes, locations, weights),
        (value, [*sizes[:-2], 5, 5], locations, weights),
        (value, [-3, -5, *sizes[2:]], locations, weights),
        (value, sizes[:-1], locations, weights),
        (value, sizes, locations[:, :-1], weights),
        (value, sizes, locations.double(), weights),
        (value, sizes, locations, weights[:, :, :1]),
    ]
    for bad in wrong:
        bad = [part.to(device) if isinstance(part, torch.Tensor) else part for part in bad]
        with pytest.raises(RuntimeError, match="ms_deform_attn"):
            op(*bad)
