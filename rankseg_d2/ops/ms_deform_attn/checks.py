"""Checks of the inputs of `ms_deform_attn`, with a message for each that does not fit."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .reference import FusedInputs, Inputs

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LAYOUTS = {
    "value": "B S M D",
    "sampling_locations": "B Q M L P 2",
    "attention_weights": "B Q M L P",
    "reference_points": "B Q L 2",
    "offsets": "B Q M L P 2",
    "logits": "B Q M L P",
}


def sizes_of(spatial_shapes: Sequence[tuple[int, int]] | Tensor) -> tuple[tuple[int, int], ...]:
    """The (h, w) of each level; sizes that torch.compile or torch.export trace stay symbols."""
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    if not isinstance(spatial_shapes, Iterable) or any(
        not isinstance(shape, Iterable) or len(shape) != 2 for shape in spatial_shapes
    ):
        raise ValueError(
            f"ms_deform_attn: spatial_shapes must be pairs (h, w), got {spatial_shapes}"
        )
    pairs = tuple((h, w) for h, w in spatial_shapes)
    symbols = (int, torch.SymInt)
    sizes = tuple(tuple(n if isinstance(n, symbols) else int(n) for n in pair) for pair in pairs)
    if any(size < 1 for pair in sizes for size in pair):
        raise ValueError(f"ms_deform_attn: spatial_shapes must be positive, got {sizes}")
    return sizes


def check(inputs: Inputs | FusedInputs) -> None:
    """Raise ValueError for an input of a wrong type, dtype, device or shape."""
    shapes = inputs.spatial_shapes
    # Neither `_asdict` nor, below, `setdefault`: torch.compile of torch 2.4 cannot trace them.
    tensors = {name: getattr(inputs, name) for name in _LAYOUTS if hasattr(inputs, name)}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"ms_deform_attn: {name} must be a tensor, got {type(tensor)}")
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"ms_deform_attn: {name} has dtype {tensor.dtype}, expected one of "
                f"{', '.join(map(str, DTYPES))}"
            )
        if tensor.device != inputs.value.device:
            raise ValueError(
                f"ms_deform_attn: {name} is on {tensor.device}, but value is on "
                f"{inputs.value.device}; move them to one device"
            )
    sizes = {"L": len(shapes), "2": 2}  # of each letter, from the first tensor that has it
    for name, tensor in tensors.items():
        _check_shape(name, tensor, sizes)
        area = sum(h * w for h, w in shapes)
        if sizes["S"] != area:
            raise ValueError(
                f"ms_deform_attn: value has S = {sizes['S']} positions, but spatial_shapes "
                f"{shapes} have {area}"
            )


def _check_shape(name: str, tensor: Tensor, sizes: dict[str, int]) -> None:
    letters = _LAYOUTS[name].split()
    layout = f"({', '.join(letters)})"
    if tensor.ndim != len(letters):
        _wrong_shape(name, tensor, layout)
    for letter, size in zip(letters, tensor.shape, strict=True):
        if letter not in sizes:
            sizes[letter] = size
    shape = tuple(sizes[letter] for letter in letters)
    if shape != tuple(tensor.shape):
        _wrong_shape(name, tensor, f"{layout} = {shape}")


def _wrong_shape(name: str, tensor: Tensor, expected: str) -> None:
    raise ValueError(f"ms_deform_attn: {name} has shape {tuple(tensor.shape)}, expected {expected}")
