"""The golden data's rules: weights from their names, its inputs, and how its arrays are compared.

`data/README.md` says where the files come from.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from .paths import GOLDEN as DATA

# "div" only: the end of a name, and the gain of that weight.
GAINS = {
    "multihead_attn.in_proj_weight": 3.0,
    "self_attn.in_proj_weight": 2.0,
    "multihead_attn.out_proj.weight": 0.4,
    "self_attn.out_proj.weight": 0.05,
    "linear2.weight": 0.1,
}


@torch.no_grad()
def fill(model, variant: str = "div", prefix: str = "") -> None:
    """Give all floating-point weights and buffers the values of their names.

    `prefix` is what a whole model's names have before those of `model`, for example "backbone.".
    In variant "div" the queries differ from each other, in "spec" hardly.
    """
    weights = model.state_dict() if hasattr(model, "state_dict") else model
    for name, weight in weights.items():
        if weight.is_floating_point():
            weight.copy_(value_of(prefix + name, weight.shape, variant))


def value_of(name: str, shape, variant: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % 2**63
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
    fan_in = noise.numel() / shape[0] if len(shape) >= 2 else 1
    if variant == "div":
        value = _diverse(name, noise, fan_in)
        if value is not None:
            return value
        if len(shape) >= 2 and shape[0] > 1:
            noise = noise - noise.flatten(1).mean(1).reshape(-1, *[1] * (len(shape) - 1))
        for end, gain in GAINS.items():
            if name.endswith(end):
                return gain * noise / math.sqrt(fan_in)
    elif variant != "spec":
        raise ValueError(f"variant is div or spec, got {variant!r}")
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if name.endswith("running_mean"):
        return 0.1 * noise
    if name.endswith("sampling_offsets.bias"):
        return noise
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    return noise / math.sqrt(fan_in) if len(shape) >= 2 else 0.1 * noise


def _diverse(name: str, noise: Tensor, fan_in: float) -> Tensor | None:
    if name.endswith(("query_feat.weight", "query_embed.weight")):
        return noise
    if name.endswith("class_embed.weight"):
        return 4 * noise / math.sqrt(fan_in)
    if name == "ml_norm.weight":
        return 4 * (1 + 0.1 * noise)
    if name.endswith(("ml_head.fc.W", "ml_head.cls_emb")):
        return 4 * noise / math.sqrt(noise.shape[-1])
    if name.endswith(("mask_features.bias", "mask_embed.layers.2.bias")):
        return 0 * noise
    return None


def inputs() -> dict[str, Tensor]:
    """uint8: image_A, image_B (3, H, W), video_V, video_W (3 frames, 3, H, W)."""
    with np.load(DATA / "golden_inputs.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Array:
    """What is known of an array: its shape, and `values`, each `step`-th of its elements."""

    def __init__(self, values: np.ndarray, shape=None, step: int = 1):
        self.values = values
        self.shape = values.shape if shape is None else tuple(shape)
        self.step = step

    def diff(self, x) -> tuple[float, float]:
        """The largest absolute difference, and the same over the standard deviation."""
        x = x.detach().cpu().numpy() if torch.is_tensor(x) else np.asarray(x)
        assert x.shape == self.shape, (x.shape, self.shape)
        values = self.values.reshape(-1).astype(np.float64)
        if not values.size:
            return 0.0, 0.0
        largest = np.abs(x.reshape(-1)[:: self.step] - values).max()
        spread = values.std() if values.size > 1 else abs(values[0])
        return float(largest), float(largest / (spread + 1e-30))


def load(path) -> dict[str, Array]:
    """The arrays of an .npz file in `data/`, or at a path, by name."""
    arrays = {}
    with np.load(DATA / path) as file:
        for key in file.files:
            name, _, part = key.partition("@")
            if not part:
                arrays[name] = Array(file[name])
            elif part == "sub":
                step = int(file[f"{name}@step"])
                arrays[name] = Array(file[key], file[f"{name}@shape"].tolist(), step)
    return arrays
