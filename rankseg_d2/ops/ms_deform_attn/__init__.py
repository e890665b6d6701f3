"""Multi-scale deformable attention: `ms_deform_attn` and the backends that can compute it.

`reference.py` defines the operation. A backend is an object with a `name`, `why_not(inputs)`
(None, or the reason why it cannot run; with `inputs=None` whether it can run here at all) and
`run(inputs)`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import unknown_name
from .reference import Inputs, Reference

__all__ = ["backends", "ms_deform_attn"]

BACKENDS = (Reference(),)  # "auto" takes the first that can
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    backend: str = "auto",
) -> Tensor:
    """Weighted sums of values sampled around each query, in all levels: (B, Q, M*D).

    Args:
        value: (B, S, M, D), the levels one after the other, each row by row.
        spatial_shapes: the (h, w) of each level; their areas sum to S. Ints keep torch.compile in
            one graph; a tensor (L, 2) is read back from its device on every call.
        sampling_locations: (B, Q, M, L, P, 2), (x, y) in [0, 1] from outer edge to outer edge of
            a level. What lies outside is zero.
        attention_weights: (B, Q, M, L, P).
        backend: "auto", or the name of one backend (see `backends`).
    """
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    shapes = tuple((int(h), int(w)) for h, w in spatial_shapes)
    inputs = Inputs(value, shapes, sampling_locations, attention_weights)
    _check(inputs)
    return _choose(backend, inputs).run(inputs)


class BackendState(NamedTuple):
    name: str
    why_not: str | None  # None: it can run on this machine


def backends() -> list[BackendState]:
    """Each backend's name and the reason why it cannot run here, in the order of preference."""
    return [BackendState(backend.name, backend.why_not(None)) for backend in BACKENDS]


def _choose(name: str, inputs: Inputs):
    if name == "auto":
        return next(backend for backend in BACKENDS if backend.why_not(inputs) is None)
    for backend in BACKENDS:
        if backend.name == name:
            reason = backend.why_not(inputs)
            if reason is not None:
                raise RuntimeError(
                    f"ms_deform_attn: backend {name!r} cannot run: {reason}; "
                    'backend="auto" takes one that can'
                )
            return backend
    names = ["auto", *(backend.name for backend in BACKENDS)]
    raise unknown_name("the backend of ms_deform_attn", name, names)


def _check(inputs: Inputs) -> None:
    value, shapes, locations, weights = inputs
    tensors = {
        "value": value,
        "sampling_locations": locations,
        "attention_weights": weights,
    }
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"ms_deform_attn: {name} has dtype {tensor.dtype}, expected one of "
                f"{', '.join(map(str, DTYPES))}"
            )
        if tensor.device != value.device:
            raise ValueError(
                f"ms_deform_attn: {name} is on {tensor.device}, but value is on {value.device}; "
                "move them to one device"
            )
    if value.ndim != 4:
        _wrong_shape("value", value, "(B, S, M, D)")
    area = sum(h * w for h, w in shapes)
    if value.shape[1] != area:
        raise ValueError(
            f"ms_deform_attn: value has S = {value.shape[1]} positions, but spatial_shapes "
            f"{shapes} have {area}"
        )
    if locations.ndim != 6:
        _wrong_shape("sampling_locations", locations, "(B, Q, M, L, P, 2)")
    batch, _, heads, _ = value.shape
    expected = (batch, locations.shape[1], heads, len(shapes), locations.shape[4], 2)
    if tuple(locations.shape) != expected:
        _wrong_shape("sampling_locations", locations, f"(B, Q, M, L, P, 2) = {expected}")
    if tuple(weights.shape) != expected[:-1]:
        _wrong_shape("attention_weights", weights, f"(B, Q, M, L, P) = {expected[:-1]}")


def _wrong_shape(name: str, tensor: Tensor, expected: str) -> None:
    raise ValueError(f"ms_deform_attn: {name} has shape {tuple(tensor.shape)}, expected {expected}")
