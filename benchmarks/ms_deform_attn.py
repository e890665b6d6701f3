"""Time of multi-scale deformable attention, each backend against the reference and public kernels.

    python benchmarks/ms_deform_attn.py [--device cuda] [--repeats 7]

The reference is torch's grid_sample for each level, as pixel decoders do without a compiled kernel.
Of the public kernels, those that can be imported take part on a GPU: `deformops`, and Deformable
DETR's, built as `MultiScaleDeformableAttention`. All run in turn in this process, on the levels of
a square image at strides 8, 16, 32, with a query at each of their pixels. Points lie "near" (at the
initial offsets, 1 to 4 pixels along a ray for each head, with a normal deviation of 2 pixels) or
"anywhere" (uniform over the image). On a GPU, MiB are the peak memory of a call beyond its inputs.
"""

import importlib
import math
import statistics
import sys
from functools import partial

import torch
from common import make_parser, time_in_turn, times_faster, write_heading, write_table

from rankseg_d2.ops.ms_deform_attn import backends, ms_deform_attn

HEADS, CHANNELS, POINTS, STRIDES = 8, 32, 4, (8, 16, 32)
CPU_CASES = [  # image size, batch, dtype, points
    (384, 1, torch.float32, "near"),
    (512, 1, torch.float32, "near"),
    (640, 1, torch.float32, "near"),
    (640, 1, torch.float32, "anywhere"),
    (640, 1, torch.bfloat16, "near"),
    (1024, 1, torch.float32, "near"),
]
GPU_CASES = [
    (1024, batch, dtype, "near") for batch in (2, 16) for dtype in (torch.float32, torch.bfloat16)
] + [(1024, 2, torch.float32, "anywhere")]


def make(size, batch, dtype, positions, device):
    """Value, shapes, locations, weights of an encoder layer."""
    random = torch.Generator().manual_seed(0)
    shapes = [(size // stride, size // stride) for stride in STRIDES]
    centers = torch.cat([cell_centers(*shape) for shape in shapes])  # (Q, 2)
    queries = len(centers)
    value = torch.randn(batch, queries, HEADS, CHANNELS, generator=random)
    points = (batch, queries, HEADS, len(shapes), POINTS)
    if positions == "near":
        angle = torch.arange(HEADS) * (2 * math.pi / HEADS)
        rays = torch.stack([angle.cos(), angle.sin()], -1)[:, None, None]  # (M, 1, 1, 2)
        rays = rays / rays.abs().amax(-1, keepdim=True)
        offsets = rays * torch.arange(1, POINTS + 1)[:, None]  # (M, 1, P, 2)
        offsets = offsets + 2 * torch.randn(*points, 2, generator=random)
        sizes = torch.tensor([(w, h) for h, w in shapes])[:, None]  # (L, 1, 2)
        locations = centers[:, None, None, None] + offsets / sizes
    else:
        locations = torch.rand(*points, 2, generator=random)
    weights = torch.randn(points, generator=random).flatten(-2).softmax(-1).view(points)
    return value.to(device, dtype), shapes, locations.to(device), weights.to(device)


def cell_centers(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([x / width, y / height], -1) + 0.5 / width).flatten(0, 1)


class DeformableDetr(torch.autograd.Function):
    """The public kernel of Deformable DETR; it knows only float32 and float64."""

    @staticmethod
    def forward(ctx, kernel, *tensors):
        ctx.kernel = kernel
        ctx.save_for_backward(*tensors)
        return kernel.ms_deform_attn_forward(*tensors, 64)

    @staticmethod
    def backward(ctx, grad):
        grads = ctx.kernel.ms_deform_attn_backward(*ctx.saved_tensors, grad.contiguous(), 64)
        value, locations, weights = grads
        return None, value, None, None, locations, weights


def competitors(device):
    """Name -> function of (value, shapes, locations, weights); ours is the first."""

    def of(backend):
        return lambda *inputs: ms_deform_attn(*inputs, backend=backend)

    able = [name for name, why_not in backends() if why_not is None]
    found = {name: of(name) for name in (device, "reference") if name in able}
    if device == "cuda":
        for package, call in (("deformops", deformops), (DETR, deformable_detr)):
            try:
                module = importlib.import_module(package)
            except ImportError:
                continue
            found[package] = lambda *inputs, module=module, call=call: call(module, *inputs)
    return found


DETR = "MultiScaleDeformableAttention"


def flat(value, shapes, locations, weights):
    """Inputs as the public kernels take them: sizes and first positions as tensors."""
    sizes = torch.tensor(shapes, device=value.device)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    return value, sizes, starts, locations, weights


def deformops(module, *inputs):
    return module.deform2d_multiscale(*flat(*inputs))


def deformable_detr(module, value, *others):
    return DeformableDetr.apply(module, *flat(value.float(), *others)).to(value.dtype)


def run_pass(run, inputs, backward):
    value, shapes, *points = inputs
    tensors = [tensor.detach().requires_grad_(backward) for tensor in (value, *points)]
    out = run(tensors[0], shapes, *tensors[1:])
    if backward:
        out.backward(torch.ones_like(out))


def extra_mebibytes(run):
    """The peak of a GPU's memory during a call, beyond what was in use before it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def table_row(case, backward, kernels, device, repeats):
    size, batch, dtype, positions = case
    inputs = make(*case, device)
    runs = {name: partial(run_pass, kernel, inputs, backward) for name, kernel in kernels.items()}
    times, _ = time_in_turn(runs, repeats, best_of=3, warm_up=True)
    ours, *others = times.values()
    cells = [f"{size}²", str(batch), str(dtype).partition(".")[2], positions]
    cells += ["forward + backward" if backward else "forward"]
    cells += [f"{statistics.median(seconds) * 1e3:.2f}" for seconds in times.values()]
    cells += [times_faster(other, ours) for other in others]
    if device == "cuda":
        cells += [f"{extra_mebibytes(run):.1f}" for run in runs.values()]
    return cells


def main():
    parser = make_parser(__doc__, repeats=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    torch.set_num_threads(2)
    why_not = dict(backends())[args.device]
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"backend 'cuda' cannot run: {why_not}")
    kernels = competitors(args.device)
    others = list(kernels)[1:]  # the first is ours
    heads = ["image", "batch", "dtype", "points", "pass", *(f"{name} ms" for name in kernels)]
    heads += [f"times faster than {name}: median of pairs (lowest, highest)" for name in others]
    if args.device == "cuda":
        heads += [f"{name} MiB" for name in kernels]
    without = f"Without the backend {args.device!r}: {why_not}" if why_not else ""
    write_heading(
        "Multi-scale deformable attention",
        f"""Levels at strides {STRIDES} of a square image, a query at each pixel, {HEADS} heads,
        {CHANNELS} channels, {POINTS} points; {args.repeats} runs in turn, each the best of 3
        calls. {without}""",
        args.device,
    )
    cases = GPU_CASES if args.device == "cuda" else CPU_CASES
    rows = (
        table_row(case, backward, kernels, args.device, args.repeats)
        for case in cases
        for backward in (False, True)
    )
    write_table(heads, rows)


if __name__ == "__main__":
    main()
