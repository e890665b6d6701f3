"""Write a model as a folder that transformers' from_pretrained reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ...checkpoints.sources import Table, maskformer
from ...engine.packing import write_packed
from ...errors import short
from ...files import replacing
from .fields import (
    DETR,
    MASK2FORMER,
    MASKFORMER,
    SAME,
    SAME_OF_ALL,
    SAME_OF_BACKBONES,
    SWIN,
    value_of,
)
from .folder import CONFIG, KINDS, PREPROCESSOR
from .images import write_images
from .resnet import write_resnet

WEIGHTS = "model.safetensors"
_STAGES = [f"stage{i}" for i in range(1, 5)]
_CLASSES = {"mask2former": "ForUniversalSegmentation", "maskformer": "ForInstanceSegmentation"}
_TABLES = {"mask2former": maskformer.MASK2FORMER, "maskformer": maskformer.MASKFORMER}
_NORM = "model.pixel_level_module.encoder.{}layernorm"  # of Swin; no feature passes it
_ENCODER = {"mask2former": "swin.", "maskformer": "model."}
_INDEX = "relative_position_index"


def write_folder(
    cfg: CfgNode, weights: Mapping[str, Tensor], names: Sequence[str], folder: Path
) -> None:
    """Write weights of a config's model, config.json and preprocessor_config.json."""
    kind = _kind(cfg)
    files = {
        CONFIG: _config(cfg, kind, names),
        PREPROCESSOR: write_images(cfg, kind, len(names)),
    }
    if all(name.startswith("backbone.") for name in weights):
        raise ValueError("the file has a backbone's weights only; give one of a whole model")
    theirs = file_weights(cfg, kind, weights)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the folder to write, {folder}, is a file; name another one")
    folder.mkdir(parents=True, exist_ok=True)
    write_packed(folder / WEIGHTS, theirs, None)
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _kind(cfg: CfgNode) -> str:
    """One of KINDS; ValueError where transformers has no such model."""
    if cfg.MODEL.RANKSEG.FLAG:
        raise ValueError(
            "MODEL.RANKSEG.FLAG is True, but transformers has no model with a ranking of "
            "categories; only models without RankSeg can be written for it"
        )
    if cfg.MODEL.META_ARCHITECTURE != "MaskFormer":
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; transformers has "
            "Mask2Former and MaskFormer for images only (MODEL.META_ARCHITECTURE MaskFormer)"
        )
    source = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    kind = "mask2former" if source == "multi_scale_pixel_decoder" else "maskformer"
    backbone = cfg.MODEL.BACKBONE.NAME
    if backbone not in SAME_OF_BACKBONES:
        raise ValueError(
            f"MODEL.BACKBONE.NAME is {backbone}, but models can be written for transformers with "
            f"{' or '.join(SAME_OF_BACKBONES)} only"
        )
    for key, value in (SAME_OF_ALL | SAME[kind] | SAME_OF_BACKBONES[backbone]).items():
        if value_of(cfg, key) != value:
            raise ValueError(
                f"{key} is {short(value_of(cfg, key))}, but transformers' {KINDS[kind]} has "
                f"{value} only, so this model cannot be written for it"
            )
    return kind


def _config(cfg: CfgNode, kind: str, names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "architectures": [f"{KINDS[kind]}{_CLASSES[kind]}"],
        "model_type": kind,
        "backbone_config": _backbone(cfg, kind),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    if kind == "mask2former":
        ignore = {"ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE}
        return found | MASK2FORMER.write(cfg) | ignore
    heads = cfg.MODEL.MASK_FORMER.NHEADS
    return found | MASKFORMER.write(cfg) | {
        "decoder_config": DETR.write(cfg) | {"encoder_attention_heads": heads}
    }  # fmt: skip


def _backbone(cfg: CfgNode, kind: str) -> dict[str, Any]:
    if cfg.MODEL.BACKBONE.NAME != "D2SwinTransformer":
        return write_resnet(cfg) | {"out_features": _STAGES}
    if cfg.MODEL.SWIN.APE and kind == "maskformer":
        raise ValueError(
            "MODEL.SWIN.APE is True, which MaskFormer's Swin of transformers has in a form of its "
            "own, so this model cannot be written for it"
        )
    return {"model_type": "swin", **SWIN.write(cfg), "out_features": _STAGES}


def file_weights(cfg: CfgNode, kind: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under their names, with the constants that their models have."""
    own = {name: x for name, x in weights.items() if not name.endswith("num_batches_tracked")}
    theirs = _table(kind, own).to_theirs(own)
    if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer":
        channels = cfg.MODEL.SWIN.EMBED_DIM * 2 ** (len(cfg.MODEL.SWIN.DEPTHS) - 1)
        norm = _NORM.format(_ENCODER[kind])
        theirs |= {f"{norm}.weight": torch.ones(channels), f"{norm}.bias": torch.zeros(channels)}
    if kind == "mask2former":  # its Swin computes them
        theirs = {name: x for name, x in theirs.items() if not name.endswith(_INDEX)}
    ends = [name for name in theirs if name.endswith(".running_var")]
    counter = "num_batches_tracked"
    return theirs | {name.replace("running_var", counter): torch.tensor(0) for name in ends}


def _table(kind: str, own: Mapping[str, Tensor]) -> Table:
    """The first table that knows all of the names."""
    for table in _TABLES[kind]:
        if table.knows(own):
            return table
    unknown = next(name for name in own if not any(x.knows([name]) for x in _TABLES[kind]))
    raise ValueError(
        f"transformers' {KINDS[kind]} has no weight like {unknown}, so this model cannot be "
        "written for it"
    )
