"""From another library's checkpoint to one that says what model it is of, and back."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..checkpoints import read_metadata
from ..checkpoints.sources import TABLES, Table
from ..config import get_config, parse_config
from ..engine import describe
from ..engine.packing import write_packed
from ..errors import unknown_name
from ..files import replacing
from .fitting import BACKBONE, check_output, fitting_weights
from .huggingface import Converted, convert_folder, differing_keys, find_folder, write_folder

_TRANSFORMERS = "transformers"
_MASK_CLASSIFIERS = "MaskFormer", "VideoMaskFormer", "RankSegMaskFormer", "RankSegVideoMaskFormer"


def run(
    weights: str, output: str, config: str | None, opts: Sequence[Any], library: str | None
) -> Converted:
    """What `rankseg-d2 convert` does; without a config, the files must say what model it is."""
    folder = find_folder(weights)
    if library:
        path = export(_config(weights, config, opts), weights, output, library)
        licence = _said(weights).get("license")
        return Converted(path, [f"licence of the weights: {licence}"] if licence else [])
    if config is None and folder is not None:
        return convert_folder(folder, output, opts)
    cfg = _config(weights, config, opts)
    notes = differing_keys(folder, cfg) if folder else []
    return Converted(convert(cfg, weights, output), notes)


def _config(weights: str, config: str | None, opts: Sequence[Any]) -> CfgNode:
    """The named config, or else the one in a checkpoint of ours."""
    if config is not None:
        return get_config(config, opts)
    said = _said(weights).get("config")
    if said is None:
        raise ValueError(
            f"{weights} does not say what model it is of; name its config with --config. (Without "
            "one, convert takes checkpoints of this package's trainings, and Mask2Former and "
            "MaskFormer of transformers with their config.json)"
        )
    return parse_config(said, f"the config in {weights}", opts)


def convert(cfg: CfgNode, weights: str | os.PathLike, output: str | os.PathLike) -> Path:
    """Write the weights of a config's model, from any library that we know, as .safetensors.

    Weights of its backbone alone, such as timm's, are written without what the model predicts.
    """
    output = check_output(output)
    found = fitting_weights(cfg, weights)
    if all(name.startswith(BACKBONE) for name in found):
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
    """Write the weights of a config's model under another library's names.

    A .pth file, or for the mask classifiers of transformers a folder with all that it reads.
    """
    own = fitting_weights(cfg, weights)
    if library == _TRANSFORMERS and cfg.MODEL.META_ARCHITECTURE in _MASK_CLASSIFIERS:
        write_folder(cfg, own, _class_names(cfg, weights), Path(output))
        return Path(output)
    theirs = _table(library, own).to_theirs(own)
    with replacing(output) as temporary:
        torch.save({"state_dict": theirs}, temporary)
    return Path(output)


def _table(library: str, own: dict[str, Tensor]) -> Table:
    """The table of a library that knows all of a model's names."""
    known = list(dict.fromkeys(table.name for table in TABLES))
    if library not in known:
        raise unknown_name("--to", library, known)
    for table in TABLES:
        if table.name == library and table.knows(own):
            return table
    raise ValueError(f"{library} has no model of this kind whose names are known here")


def _said(weights: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint of ours says beside its weights; {} of other files."""
    return read_metadata(weights) if os.path.isfile(weights) else {}


def _class_names(cfg: CfgNode, weights: str | os.PathLike) -> list[str]:
    """The names of a model's classes, from its checkpoint or its data sets."""
    rows = _said(weights).get("classes") or (describe(cfg) or {}).get("classes")
    if not rows:
        raise ValueError(
            "neither the checkpoint nor the data sets of this config name the classes; name a data "
            "set in DATASETS.TEST by --set"
        )
    return [row["name"] for row in rows]
