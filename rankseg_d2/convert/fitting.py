"""The weights of a file that are exactly those of a config's model."""

import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..checkpoints import differences, locate, read_checkpoint, rename
from ..engine.checks import build_on_meta

BACKBONE = "backbone."
_SHOWN = 5  # of the names that do not fit


def check_output(output: str | os.PathLike) -> Path:
    """The path of a file to write, which must be a .safetensors file."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"the file to write, {output}, must end in .safetensors")
    return output


def fitting_weights(cfg: CfgNode, weights: str | os.PathLike) -> dict[str, Tensor]:
    """The weights of a file under our names; ValueError unless they are all of the model's.

    Or all of its backbone's. Those that stand for places are resized to the config's images.
    """
    model = build_on_meta(cfg)
    if model is None:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is not of this package"
        )
    found = read_checkpoint(locate(os.fspath(weights), PathManager)[0])["model"]
    own = model.state_dict()
    rename(found, own)
    found = {name: torch.as_tensor(value) for name, value in found.items()}
    if all(name.startswith(BACKBONE) for name in found.keys() & own.keys()):
        own = {name: value for name, value in own.items() if name.startswith(BACKBONE)}
        found = {name: value for name, value in found.items() if name in own}
    for name, rows in model.checkpoint_rows().items():
        if rows.resize is not None and name in found and found[name].shape != own[name].shape:
            found[name] = rows.resize(found[name])
    buffers = {name for name, _ in model.named_buffers()}
    wrong = [one for one in differences(found, own) if one.split(" ", 1)[0] not in buffers]
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{weights} does not fit this config: {'; '.join(wrong[:_SHOWN])}{more}. Choose the "
            "config of that model and data set, or set keys of it by --set"
        )
    return {name: value for name, value in found.items() if name in own}
