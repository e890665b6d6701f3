"""Golden data of the pixel classifiers: weights from their names in the reference, and its arrays.

`data/README.md` says where the files come from.
"""

import hashlib
import json
import math

import numpy as np
import torch
from torch import Tensor, nn

from . import golden

FOLDER = "pixels"
BUFFERS = ("attn_mask", "relative_coords_table", "position_ids", ".pe")  # computed, not filled


def value_of(name: str, shape) -> Tensor:
    """The value of a parameter or buffer of the reference, by its name and shape."""
    shape = tuple(shape)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % 2**63
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    ends = name.endswith
    if ends("running_var"):
        return 1 + 0.1 * noise.abs()
    if ends("running_mean"):
        return 0.1 * noise
    if ends("codewords"):
        return noise / math.sqrt(shape[-1])
    if ends("encoding.0.scale"):
        return -(0.5 + 0.1 * noise)
    if ends(("pos_embed", "cls_token", "position_embeddings", "relative_position_bias_table")):
        return 0.5 * noise
    if ends(("cls_emb", "query_embed.weight")):
        return noise
    if ends(("ml_fc.W", ".fc.W")):
        return 4 * noise / math.sqrt(shape[-1])
    if ends(("ml_fc.b", ".fc.b", "cls_bias_emb")):
        return 0.5 * noise
    if ends(("gamma", "gamma_1", "gamma_2", "gamma1", "gamma2")):
        return 1 + 0.1 * noise
    if ends("beta"):
        return 0.1 * noise
    if ends("mask_norm.weight"):
        return 4 * (1 + 0.1 * noise)
    fan_in = max(noise.numel() // max(shape[0], 1), 1) if shape else 1
    if len(shape) >= 2 and shape[0] > 1 and fan_in > 1:
        noise = noise - noise.flatten(1).mean(1).reshape(-1, *[1] * (len(shape) - 1))
    if ends(("conv_seg.weight", "linear_pred.weight", "decode_head.classifier.weight")):
        return 4 * noise / math.sqrt(fan_in)
    if len(shape) == 1 and ends("weight"):
        return 1 + 0.1 * noise
    return noise / math.sqrt(fan_in) if len(shape) >= 2 else 0.1 * noise


@torch.no_grad()
def fill(model, table) -> None:
    """Give a model of ours the weights of the reference, whose names a table knows."""
    theirs = table.to_theirs(model.state_dict())
    for name, value in theirs.items():
        if value.is_floating_point() and not name.endswith(BUFFERS):
            theirs[name] = value_of(name, value.shape).to(value)
    model.load_state_dict(table.to_ours(theirs))


def load(case: str) -> tuple[dict[str, golden.Array], dict]:
    """The arrays of a case by name, and its facts: classes, image seeds, names of losses, ..."""
    with open(golden.DATA / FOLDER / f"{case}.json", encoding="utf-8") as file:
        facts = json.load(file)
    return golden.load(f"{FOLDER}/{case}.npz"), facts


def image(seed: int, height: int, width: int) -> Tensor:
    """An image of the inputs: (3, H, W) uint8."""
    with np.load(golden.DATA / FOLDER / "inputs.npz") as file:
        return torch.from_numpy(file[f"img_{seed}_{height}x{width}"])


def labels(seed: int, height: int, width: int, classes: int) -> Tensor:
    """Its label map: (H, W) int64, 255 for ignored pixels."""
    with np.load(golden.DATA / FOLDER / "inputs.npz") as file:
        return torch.from_numpy(file[f"lab_{seed}_{height}x{width}_{classes}"]).long()


def samples(facts: dict, with_labels: bool = True) -> list[dict]:
    """The images of a case, with their label maps."""
    size, seeds = facts["hw"], facts["image_seeds"]
    found = [{"image": image(seed, *size)} for seed in seeds]
    for sample, seed in zip(found, seeds, strict=True) if with_labels else ():
        sample["sem_seg"] = labels(seed, *size, facts["classes"])
    return found


def without_dropout(model: nn.Module) -> None:
    """Training then drops nothing, as in the golden data."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
