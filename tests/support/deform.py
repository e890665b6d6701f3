"""Inputs for multi-scale deformable attention, and its backends as parameters of a test."""

import pytest
import torch

from rankseg_d2.ops.ms_deform_attn import backends, ms_deform_attn, ms_deform_attn_fused

SHAPES = ((3, 5), (2, 2), (1, 1))
OPS = {"plain": ms_deform_attn, "fused": ms_deform_attn_fused}
WHY_NOT = dict(backends())


def backend(name):
    """A parameter: skipped with the backend's own reason where it cannot run."""
    reason = WHY_NOT[name]
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


ALL = [backend("reference"), backend("cpu"), backend("cuda")]
COMPILED = [backend("cpu"), backend("cuda")]


def make(
    op="plain",
    batch=2,
    queries=6,
    heads=2,
    channels=3,
    points=2,
    shapes=SHAPES,
    dtype=torch.float64,
    seed=0,
):
    """The tensors of one call, a third of the points outside: value, then what `op` takes."""
    random = torch.Generator().manual_seed(seed)
    area = sum(h * w for h, w in shapes)
    value = torch.randn(batch, area, heads, channels, generator=random, dtype=dtype)
    size = (batch, queries, heads, len(shapes), points)
    places = torch.rand(*size, 2, generator=random, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(size, generator=random, dtype=dtype)
    if op == "plain":
        return [value, places, weights]
    offsets = torch.randn(*size, 2, generator=random, dtype=dtype) * 2
    references = torch.rand(batch, queries, len(shapes), 2, generator=random, dtype=dtype)
    return [value, references, offsets, weights * 6 - 3]


def call(op, tensors, shapes=SHAPES, backend="auto"):
    """The output; on a GPU if `backend` is the one that needs it."""
    if backend == "cuda":
        tensors = [tensor.cuda() for tensor in tensors]
    value, *points = tensors
    return OPS[op](value, shapes, *points, backend=backend).to(tensors[0].device)


def with_grads(op, tensors, shapes=SHAPES, backend="auto"):
    """The output, then the gradient of each tensor, on the CPU and in float64."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    out = call(op, tensors, shapes, backend)
    pattern = torch.arange(out.numel(), device=out.device).view(out.shape)
    out.backward((pattern % 7 - 3).to(out.dtype))
    return [tensor.detach().cpu().double() for tensor in (out, *(t.grad for t in tensors))]
