"""The arithmetic of the CUDA kernels without a GPU: a C++ compiler builds them over a small host
version of CUDA (cuda_on_host/), and they run lane by lane against the reference.
"""

import ctypes
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from torch.utils.cpp_extension import CUDA_HOME, include_paths, library_paths

from rankseg_d2.ops.ms_deform_attn.reference import Inputs, Reference

HERE = Path(__file__).parent
SOURCES = ROOT / "rankseg_d2/ops/ms_deform_attn/csrc/cuda"
COMPILER = shutil.which("c++") or shutil.which("g++")
NVCC = shutil.which("nvcc", path=f"{CUDA_HOME}/bin")  # as setup.py finds it
TYPES = {torch.float64: b"d", torch.float32: b"f", torch.float16: b"h", torch.bfloat16: b"b"}
SHAPES = ((5, 9), (3, 4), (1, 1))
SIZES = ("batch", "queries", "heads", "channels", "points", "levels")
GUARD = 4096  # bytes of NaN around each array


class Sizes(ctypes.Structure):
    _fields_ = (
        *((size, ctypes.c_int) for size in SIZES),
        ("shapes", ctypes.POINTER(ctypes.c_int64)),
    )


def build(folder, source, *flags):
    if COMPILER is None:
        pytest.skip("needs a C++ compiler")
    if sys.platform != "linux":
        pytest.skip("needs Linux: the lanes of a warp are its coroutines")
    library = folder / "library.so"
    include = [f"-I{path}" for path in (HERE / "cuda_on_host", SOURCES, *include_paths())]
    flags = [
        "-shared",
        "-fPIC",
        "-O1",
        "-U_FORTIFY_SOURCE",
        "-Wall",
        "-Wno-unknown-pragmas",
        *flags,
    ]
    command = [COMPILER, *include, HERE / "cuda_on_host" / source, "-o", library, *flags]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return library


@pytest.fixture(scope="module", params=[0, 1], ids=["single_adds", "vector_adds"])
def kernels(request, tmp_path_factory):
    """Both ways of adding to the gradient of value: float by float, and as on sm_90."""
    define = f"-DRANKSEG_D2_VECTOR_ADD={request.param}"
    folder = tmp_path_factory.mktemp("kernels")
    return ctypes.CDLL(str(build(folder, "kernels.cpp", "-std=c++17", "-Werror", define)))


class Guarded:
    """Room for a tensor, filled with NaN, in the midst of NaN that nobody may touch or use."""

    def __init__(self, shape, dtype):
        size, margin = math.prod(shape), GUARD // dtype.itemsize
        self.all = torch.full((size + 2 * margin,), math.nan, dtype=dtype)
        self.tensor = self.all[margin : margin + size].view(shape)

    def untouched_outside(self):
        inside = self.tensor.numel()
        return self.all.isnan().sum().item() - self.tensor.isnan().sum().item() + inside == len(
            self.all
        )


def guarded(tensor):
    copy = Guarded(tensor.shape, tensor.dtype)
    copy.tensor.copy_(tensor)
    return copy.tensor


def run(kernels, grad, value, shapes, positions, weights, reference=None):
    """Output, and gradients of value, positions, weights, from the kernels."""
    batch, _, heads, channels = value.shape
    queries, levels, points = weights.shape[1], weights.shape[3], weights.shape[4]
    flat = (ctypes.c_int64 * (2 * levels))(*(n for shape in shapes for n in shape))
    sizes = Sizes(batch, queries, heads, channels, points, levels, flat)
    inputs = [None if t is None else guarded(t) for t in (positions, weights, reference)]
    value, grad = guarded(value), guarded(grad)
    kind = torch.promote_types(value.dtype, torch.float32)
    out = Guarded((batch, queries, heads * channels), value.dtype)
    grads = [Guarded(t.shape, kind) for t in (value, positions, weights)]
    grads[0].tensor.zero_()

    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (*inputs, value)]
    head = (ctypes.c_char(TYPES[value.dtype]), ctypes.byref(sizes), *pointers)
    assert kernels.run_forward(*head, ctypes.c_void_p(out.tensor.data_ptr())) == 0
    outs = (ctypes.c_void_p(t.data_ptr()) for t in (grad, *(g.tensor for g in grads)))
    assert kernels.run_backward(*head, *outs) == 0
    assert all(array.untouched_outside() for array in (out, *grads))
    return out.tensor, *(g.tensor for g in grads)


def expected(grad, value, shapes, positions, weights, reference=None):
    """The same from the reference, in double; and the gradient of reference points, if any."""
    inputs = [t for t in (value, positions, weights, reference) if t is not None]
    inputs = [t.detach().double().requires_grad_() for t in inputs]
    value, locations, weights = inputs[:3]
    if reference is not None:
        sizes = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)
        locations = locations / sizes[:, None] + inputs[3][:, :, None, :, None]
        weights = weights.flatten(3).softmax(-1).view_as(weights)
    out = Reference().run(Inputs(value, shapes, locations, weights))
    return out.detach(), *torch.autograd.grad(out, inputs, grad.double())


def make(dtype, queries, heads=2, channels=32, points=4, shapes=SHAPES, batch=2, fused=False):
    """Gradient of the output, value, shapes, points (about a third outside), weights."""
    random = torch.Generator().manual_seed(queries + channels)
    kind = torch.promote_types(dtype, torch.float32)
    area, size = sum(h * w for h, w in shapes), (batch, queries, heads, len(shapes), points)
    value = torch.randn(batch, area, heads, channels, generator=random, dtype=kind).to(dtype)
    grad = torch.randn(batch, queries, heads * channels, generator=random, dtype=kind).to(dtype)
    weights = torch.randn(size, generator=random, dtype=kind)
    if not fused:
        locations = torch.rand(*size, 2, generator=random, dtype=kind) * 1.6 - 0.3
        return grad, value, shapes, locations, weights
    offsets = 3 * torch.randn(*size, 2, generator=random, dtype=kind)
    reference = torch.rand(batch, queries, len(shapes), 2, generator=random, dtype=kind)
    return grad, value, shapes, offsets, weights, reference


def assert_equal(ours, theirs):
    """Up to the errors of sums in the accumulator's type and, in half types, one rounding."""
    names = ("out", "value", "positions", "weights", "reference")
    for name, a, b in zip(names, ours, theirs, strict=False):
        rounding = torch.finfo(a.dtype).eps / 2 if a.dtype.itemsize == 2 else 0
        sums = 1e-12 if a.dtype == torch.float64 else 2e-5
        error = (a.double() - b).abs()
        limit = 1.01 * rounding * b.abs() + sums * (1 + b.abs().max())
        assert (error <= limit).all(), f"{name}: {error.max().item()}"


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_four_points_and_32_channels(kernels, dtype, fused):
    inputs = make(dtype, queries=sum(h * w for h, w in SHAPES), fused=fused)
    assert_equal(run(kernels, *inputs), expected(*inputs))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("queries", "channels", "points"), [(13, 3, 3), (1, 40, 1), (70, 8, 5), (3, 13, 11)]
)
def test_odd_sizes(kernels, dtype, fused, queries, channels, points):
    inputs = make(dtype, queries, 3, channels, points, batch=1, fused=fused)
    assert_equal(run(kernels, *inputs), expected(*inputs))


def test_a_map_of_several_tiles_each_way(kernels):
    inputs = make(torch.float32, queries=9 * 19 + 10 * 3, heads=1, shapes=((9, 19), (10, 3)))
    assert_equal(run(kernels, *inputs), expected(*inputs))


@pytest.mark.parametrize("where", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_spoils_its_own_query_and_head_only(kernels, where):
    grad, value, shapes, locations, weights = make(torch.float32, queries=20)
    spoilt = torch.zeros(2, 20, 2, dtype=torch.bool)
    spoilt[1, 3, 0] = True
    moved = locations.clone()
    moved[1, 3, 0, 1, 2, 0] = where
    out, grad_value, *grads = run(kernels, grad, value, shapes, moved, weights)
    assert (out.isnan().view(2, 20, 2, 32) == spoilt[..., None]).all()
    assert all((array.isnan().flatten(3).any(-1) == spoilt).all() for array in grads)
    assert not grad_value.isnan().any()


@pytest.mark.parametrize("where", [1e30, -1e30, 2.0**31, -5.0])
def test_points_outside_add_nothing_whatever_their_location(kernels, where):
    grad, value, shapes, locations, weights = make(torch.float32, queries=20)
    strange = torch.rand_like(locations[..., :1]) < 0.3
    moved = torch.where(strange, torch.tensor(where), locations)
    weights.masked_fill_(strange[..., 0], 1)
    far = torch.where(strange, torch.tensor(-5.0), locations)
    ours = run(kernels, grad, value, shapes, moved, weights)
    assert_equal(ours, expected(grad, value, shapes, far, weights))
    assert (ours[2][strange.expand_as(locations)] == 0).all()


def test_infinite_values_next_to_a_point_outside_are_not_used(kernels):
    grad, value, shapes, locations, weights = make(torch.float32, queries=20)
    value.fill_(math.inf)
    out, _, grad_locations, _ = run(kernels, grad, value, shapes, locations + 9, weights)
    assert out.abs().max() == grad_locations.abs().max() == 0


def test_points_on_the_pixels_centres(kernels):
    grad, value, shapes, locations, weights = make(torch.float64, queries=20)
    sizes = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)[:, None]
    centres = ((locations * sizes).floor() + 0.5) / sizes
    ours = run(kernels, grad, value, shapes, centres, weights)
    theirs = expected(grad, value, shapes, centres, weights)
    for i in (0, 1, 3):  # the output has a kink there, so locations have no one gradient
        torch.testing.assert_close(ours[i], theirs[i])


@pytest.mark.parametrize("size", ["batch", "queries"])
def test_nothing_in_gives_nothing_out(kernels, size):
    inputs = make(torch.float32, **{"queries": 3, size: 0})
    for array in run(kernels, *inputs)[2:]:
        assert array.numel() == 0


def test_logits_of_any_size(kernels):
    inputs = list(make(torch.float32, queries=9, fused=True))
    inputs[4] = inputs[4] * 100  # exp of it overflows
    assert_equal(run(kernels, *inputs), expected(*inputs))


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """The operators of ops.cu, for CPU tensors."""
    libraries = [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu", "-lc10"]
    strings = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    folder = tmp_path_factory.mktemp("operators")
    library = build(folder, "operators.cpp", "-std=c++20", strings, *libraries)
    if b"\0rankseg_d2\0" in library.read_bytes():  # operators of this name are there
        pytest.skip("the macros of an old torch, such as 2.4, do not let the operators be renamed")
    torch.ops.load_library(library)
    return torch.ops.rankseg_d2_on_host


def call(operators, grad, value, shapes, positions, weights, reference=None):
    """Output and gradients of value, points, weights and, where given, reference points."""
    flat = [n for shape in shapes for n in shape]
    if reference is None:
        inputs = (value, flat, positions, weights)
        forward, backward = operators.ms_deform_attn_forward, operators.ms_deform_attn_backward
        return forward(*inputs), *backward(grad, *inputs)
    inputs = (value, flat, reference, positions, weights)
    out = operators.ms_deform_attn_fused_forward(*inputs)
    gradients = operators.ms_deform_attn_fused_backward(grad, *inputs)
    grad_value, grad_reference, grad_positions, grad_weights = gradients
    return out, grad_value, grad_positions, grad_weights, grad_reference


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_operators(operators, dtype, fused):
    inputs = make(dtype, 13, 3, 40, 3, fused=fused)
    assert_equal(call(operators, *inputs), expected(*inputs))


@pytest.mark.slow
def test_operators_take_strided_and_unaligned_tensors(operators):
    inputs = make(torch.float32, 7, fused=True)
    moved = [
        torch.empty(t.numel() + 1)[1:].view(t.shape).copy_(t) if torch.is_tensor(t) else t
        for t in inputs
    ]
    assert all(t.data_ptr() % 16 for t in moved if torch.is_tensor(t))
    assert_equal(call(operators, *moved), expected(*inputs))
    flipped = [
        t.transpose(0, -1).contiguous().transpose(0, -1) if torch.is_tensor(t) else t
        for t in inputs
    ]
    assert not any(t.is_contiguous() for t in flipped if torch.is_tensor(t))
    assert_equal(call(operators, *flipped), expected(*inputs))


@pytest.mark.slow
def test_half_gradients_of_several_images_share_a_buffer(operators):
    shapes = ((66, 66), (5, 9))  # 18 MB an image in float32, the buffer holds 32 MB
    inputs = make(torch.bfloat16, 3, 8, 128, 2, shapes)
    assert_equal(call(operators, *inputs), expected(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["batch", "queries", "points"])
def test_operators_on_nothing(operators, size):
    inputs = make(torch.bfloat16, **{"queries": 3, size: 0})
    out, grad_value, *others = call(operators, *inputs)
    assert out.shape == inputs[0].shape
    assert out.abs().sum() == grad_value.abs().sum() == 0
    assert all(grad.numel() == 0 for grad in others)


@pytest.mark.slow
def test_backward_says_that_it_is_not_deterministic(operators):
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="ms_deform_attn.* deterministic"):
            call(operators, *make(torch.float32, 3))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_more_levels_than_fit_are_refused(operators):
    inputs = make(torch.float32, 3, channels=1, points=1, shapes=((1, 1),) * 33)
    with pytest.raises(RuntimeError, match="CUDA kernels take at most 32 levels, got 33"):
        call(operators, *inputs)


@pytest.mark.skipif(NVCC is None, reason="needs nvcc, the CUDA compiler")
@pytest.mark.slow
@pytest.mark.parametrize("source", ["forward", "backward", "ops"])
def test_compiles_for_gpus_without_a_warning(tmp_path, source):
    if source == "ops" and torch.version.cuda is None:
        pytest.skip("needs the headers of a CUDA build of PyTorch")
    standard = "-std=c++20" if source == "ops" else "-std=c++17"  # what PyTorch's headers need
    targets = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in (80, 90)]
    include = [f"-I{folder}" for folder in include_paths()]
    output = ["-c", SOURCES / f"{source}.cu", "-o", tmp_path / "object.o"]
    command = [NVCC, standard, "-Xcompiler=-Wall,-fPIC", *targets, *include, *output]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "warning" not in built.stderr, built.stderr
