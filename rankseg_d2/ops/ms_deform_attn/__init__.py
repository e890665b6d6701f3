"""Multi-scale deformable attention: `ms_deform_attn` and the backends that can compute it.

`reference.py` defines the operation. A backend is an object with a `name`, `why_not(inputs)`
(None, or the reason why it cannot run; with `inputs=None` whether it can run here at all) and
`run(inputs)`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ...errors import unknown_name
from ..exporting import is_exporting
from .checks import check, sizes_of
from .cpu import Cpu
from .cuda import Cuda
from .exported import Exported
from .reference import FusedInputs, Inputs, Reference

__all__ = ["backends", "ms_deform_attn", "ms_deform_attn_fused"]

BACKENDS = (Cuda(), Cpu(), Reference())  # "auto" takes the first that can
_EXPORTED = Exported()
Shapes = Sequence[tuple[int, int]] | Tensor


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Shapes,
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
    inputs = Inputs(value, sizes_of(spatial_shapes), sampling_locations, attention_weights)
    return _run(inputs, backend)


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Shapes,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
    backend: str = "auto",
) -> Tensor:
    """`ms_deform_attn` from what a layer predicts, in one pass over memory: (B, Q, M*D).

    Args:
        value, spatial_shapes, backend: as for `ms_deform_attn`.
        reference_points: (B, Q, L, 2), (x, y) in [0, 1].
        offsets: (B, Q, M, L, P, 2), (x, y) from the reference point, in pixels of the level.
        logits: (B, Q, M, L, P); their softmax over levels and points together is the weight.
    """
    inputs = FusedInputs(value, sizes_of(spatial_shapes), reference_points, offsets, logits)
    return _run(inputs, backend)


class BackendState(NamedTuple):
    name: str
    why_not: str | None  # None: it can run on this machine


def backends() -> list[BackendState]:
    """Each backend's name and the reason why it cannot run here, in the order of preference."""
    return [BackendState(backend.name, backend.why_not(None)) for backend in BACKENDS]


def _run(inputs: Inputs | FusedInputs, backend: str) -> Tensor:
    check(inputs)
    return _choose(backend, inputs).run(inputs)


def _choose(name: str, inputs: Inputs | FusedInputs):
    if name == "auto" and is_exporting():
        return _EXPORTED
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
