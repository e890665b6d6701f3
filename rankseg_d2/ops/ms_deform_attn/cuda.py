"""The CUDA kernels of csrc/cuda, if they are built and the tensors are on a GPU."""

import torch

from .. import library
from . import compiled
from .reference import FusedInputs, Inputs

# What the kernels can address; the same as in csrc/cuda/problem.cuh and ops.cu.
MAX_LEVELS = 32
MAX_IMAGES = _MAX_HEADS = 65535
_MAX_NUMBERS = 2**31 - 1  # of value, per image
MAX_QUERIES = 2**31 - 257

_NOT_BUILT = (
    "rankseg_d2 was installed without its CUDA kernels; install it again with nvcc (the CUDA "
    "toolkit) and a CUDA build of PyTorch"
)


class Cuda(compiled.Compiled):
    """Sums in float32 (float64 for float64); the gradient of value is not deterministic."""

    name = "cuda"

    def why_not(self, inputs: Inputs | FusedInputs | None) -> str | None:
        if not torch.cuda.is_available():
            return "PyTorch finds no CUDA device"
        if not BUILT:
            return library.WHY_NOT or _NOT_BUILT
        if inputs is None:
            return None
        if inputs.value.device.type != "cuda":
            return f"value is on {inputs.value.device}, not on a CUDA device"
        return _too_large(inputs)


def _is_built() -> bool:
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(
            "rankseg_d2::ms_deform_attn_forward", "CUDA"
        )
    except RuntimeError:  # no such operator
        return False


BUILT = _is_built()  # once, because torch.compile cannot trace it


def _too_large(inputs: Inputs | FusedInputs) -> str | None:
    value, shapes, *_, weights = inputs
    batch, positions, heads, channels = value.shape
    limits = {
        "levels": (len(shapes), MAX_LEVELS),
        "images": (batch, MAX_IMAGES),
        "heads": (heads, _MAX_HEADS),
        "queries": (weights.shape[1], MAX_QUERIES),
        "numbers per image": (positions * heads * channels, _MAX_NUMBERS),
    }
    for what, (count, most) in limits.items():
        if count > most:
            return f"it takes at most {most} {what}, got {count}"
    return None
