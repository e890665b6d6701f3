"""From another library's checkpoint to one that says what model it is of, and back."""

import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..checkpoints import differences, locate, read_checkpoint, rename
from ..checkpoints.sources import TABLES, Table
from ..engine import describe
from ..engine.checks import build_on_meta
from ..engine.packing import write_packed
from ..errors import unknown_name
from ..files import replacing

_BACKBONE = "backbone."
_SHOWN = 5  # of the names that do not fit


def convert(cfg: CfgNode, weights: str | os.PathLike, output: str | os.PathLike) -> Path:
    """Write the weights of a config's model, from any library that we know, as .safetensors.

    Weights of its backbone alone, such as timm's, are written without what the model predicts.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"the file to write, {output}, must end in .safetensors")
    found = _fitting(cfg, weights)
    if all(name.startswith(_BACKBONE) for name in found):
        write_packed(output, found, None)
        return output
    description = describe(cfg)
    if description is None:
        raise ValueError(
            "the data sets of this config have no class names; name one in DATASETS.TEST by --set"
        )
    write_packed(output, found, description)
    return output


def export(
    cfg: CfgNode, weights: str | os.PathLike, output: str | os.PathLike, library: str
) -> Path:
    """Write the weights of a config's model under another library's names, as .pth."""
    own = _fitting(cfg, weights)
    theirs = _table(library, own).to_theirs(own)
    with replacing(output) as temporary:
        torch.save({"state_dict": theirs}, temporary)
    return Path(output)


def _fitting(cfg: CfgNode, weights: str | os.PathLike) -> dict[str, Tensor]:
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
    if all(name.startswith(_BACKBONE) for name in found.keys() & own.keys()):
        own = {name: value for name, value in own.items() if name.startswith(_BACKBONE)}
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


def _table(library: str, own: dict[str, Tensor]) -> Table:
    """The table of a library that knows all of a model's names."""
    known = list(dict.fromkeys(table.name for table in TABLES))
    if library not in known:
        raise unknown_name("--to", library, known)
    for table in TABLES:
        if table.name == library and table.knows(own):
            return table
    raise ValueError(f"{library} has no model of this kind whose names are known here")
