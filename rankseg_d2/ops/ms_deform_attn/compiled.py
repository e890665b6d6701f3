"""The compiled operations of csrc/, registered with PyTorch: their shapes and derivatives.

Coordinates, weights and sums are float32, or float64 where value is.
"""

import torch
from torch import Tensor

from .. import library
from .reference import FusedInputs, Inputs


class Compiled:
    """The part that the C++ and the CUDA backend share."""

    def run(self, inputs: Inputs | FusedInputs) -> Tensor:
        value, shapes, *points = inputs
        dtype = torch.promote_types(value.dtype, torch.float32)
        sizes = [size for shape in shapes for size in shape]  # h0, w0, h1, w1, ...
        points = [tensor.to(dtype) for tensor in points]
        if isinstance(inputs, FusedInputs):
            return torch.ops.rankseg_d2.ms_deform_attn_fused_forward(value, sizes, *points)
        return torch.ops.rankseg_d2.ms_deform_attn_forward(value, sizes, *points)


def _register() -> None:
    for fused in ("", "_fused"):
        forward, backward = (f"rankseg_d2::ms_deform_attn{fused}_{way}" for way in WAYS)
        torch.library.register_fake(forward, _fake_forward)
        torch.library.register_fake(backward, _fake_backward)
        run_backward = getattr(torch.ops.rankseg_d2, f"ms_deform_attn{fused}_backward")
        torch.library.register_autograd(
            forward, _differentiate(run_backward), setup_context=_keep_inputs
        )
        torch.library.register_autograd(backward, _no_second_derivative)


WAYS = ("forward", "backward")


def _fake_forward(value, shapes, *points):
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, points[-1].shape[1], heads * channels)


def _fake_backward(grad, value, shapes, *points):
    return tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (value, *points)
    )


def _keep_inputs(ctx, inputs, output) -> None:
    value, ctx.shapes, *points = inputs
    ctx.save_for_backward(value, *points)


def _differentiate(run_backward):
    def backward(ctx, grad):
        value, *points = ctx.saved_tensors
        grad_value, *grad_points = run_backward(grad, value, ctx.shapes, *points)
        return grad_value, None, *grad_points

    return backward


def _no_second_derivative(ctx, *grads):
    raise RuntimeError("ms_deform_attn has no second derivative")


if library.WHY_NOT is None:
    _register()
