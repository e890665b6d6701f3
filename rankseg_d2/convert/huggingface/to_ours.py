"""From a folder of transformers to a config of ours, and to a file that says what it is of."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ...config import get_config
from ...engine import describe
from ...engine.packing import description, write_packed
from ...errors import short
from ..fitting import check_output, fitting_weights
from .classes import Data, class_names, find_data
from .fields import DETR, MASK2FORMER, MASKFORMER, SAME, SWIN, value_of
from .folder import CONFIG, KINDS, Folder
from .images import read_images
from .resnet import read_resnet, read_timm

_BASES = {"mask2former": "parts/mask2former", "maskformer": "parts/mask_classification"}
_THRESHOLDS = {  # of panoptic results, as transformers' defaults
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.8,
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.8,
}
_SHOWN = 3  # of the classes that have other names


@dataclass(frozen=True)
class Converted:
    """What was written, and sentences for the user."""

    path: Path
    notes: list[str]


def convert_folder(
    folder: Folder, output: str | os.PathLike, opts: Sequence[Any] = ()
) -> Converted:
    """Write the model of a folder as .safetensors, with the config that its files describe."""
    output = check_output(output)
    cfg, data, notes = config_of(folder, opts)
    names = class_names(folder.config)
    found = fitting_weights(cfg, folder.weights)
    write_packed(output, found, _description(cfg, names, data, folder.licence))
    said = f" of {data.dataset.removesuffix('_train')}" if data.dataset else ""
    video = "video " if folder.is_video else ""
    notes.insert(0, f"model: {video}{KINDS[folder.kind]}, {len(names)} classes{said}, predicts "
                    f"{', '.join(data.tasks)} results")  # fmt: skip
    return Converted(output, [*notes, f"licence of the weights: {folder.licence}"])


def config_of(folder: Folder, opts: Sequence[Any] = ()) -> tuple[CfgNode, Data, list[str]]:
    """The config that a folder's files describe, its data set and tasks, and notes."""
    keys, notes = _keys(folder)
    names = class_names(folder.config)
    said = f"{folder.names} {' '.join(folder.config.get('architectures') or ())}".lower()
    is_maskformer = folder.kind == "maskformer"  # its class ...ForInstanceSegmentation has all
    data = find_data(names, folder.names if is_maskformer else said, folder.is_video)
    keys |= data.keys() | {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(names)}
    if folder.is_video:
        keys["MODEL.META_ARCHITECTURE"] = "VideoMaskFormer"
    if data.dataset is None:
        keys["MODEL.SEM_SEG_HEAD.IGNORE_VALUE"] = folder.preprocessor.get("ignore_index") or 255
        notes.append(
            "the classes are those of no data set that is known here, so "
            + ("every class is taken for a thing" if "panoptic" in data.tasks
               else "results have no things; --set MODEL.MASK_FORMER.TEST.… changes the results")
        )  # fmt: skip
    words = [word for item in keys.items() for word in item]
    return get_config(_BASES[folder.kind], [*words, *opts]), data, notes


def differing_keys(folder: Folder, cfg: CfgNode) -> list[str]:
    """Sentences about what a config has otherwise than the folder's files."""
    keys, notes = _keys(folder)
    for key, value in keys.items():
        own = value_of(cfg, key)
        if own != value and not (isinstance(value, list) and _near(value, own)):
            notes.append(f"{key} is {short(own)} in this config, {short(value)} in {folder.path}")
    said = describe(cfg)
    names = class_names(folder.config)
    own_names = [row["name"] for row in said["classes"]] if said else names
    pairs = list(enumerate(zip(own_names, names, strict=False)))
    others = [f"{i} is {a!r} here, {b!r} there" for i, (a, b) in pairs if a != b]
    if others:
        more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        notes.append(f"names of classes differ: {'; '.join(others[:_SHOWN])}{more}")
    return [*notes, f"licence of the weights: {folder.licence}"]


def _keys(folder: Folder) -> tuple[dict[str, Any], list[str]]:
    """The keys of the network and of preprocessing, without data."""
    config, where = folder.config, str(folder.path / CONFIG)
    keys: dict[str, Any] = dict(SAME[folder.kind])
    if folder.kind == "mask2former":
        keys |= MASK2FORMER.read(config, where)
    else:
        decoder = _section(config, "decoder_config", where)
        keys |= MASKFORMER.read(config, where) | DETR.read(decoder, f"{where}, decoder_config")
    keys |= _backbone_keys(config, where) | _THRESHOLDS
    images, notes = read_images(folder.preprocessor)
    return keys | images, notes


def _backbone_keys(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of the backbone: Swin, transformers' ResNet or one of timm."""
    section = _section(config, "backbone_config", where)
    kind = section.get("model_type", "swin")
    if not section and config.get("backbone"):
        kind, section = "timm_backbone", {"backbone": config["backbone"]}
    where = f"{where}, backbone_config"
    if kind in ("swin", "maskformer-swin"):
        keys = SWIN.read(section, where)
        if keys["MODEL.SWIN.APE"] and kind == "maskformer-swin":
            raise ValueError(
                f"{where}: use_absolute_embeddings is true, which MaskFormer's Swin of "
                "transformers has in a form of its own, so these weights cannot be used"
            )
        return keys | {"MODEL.BACKBONE.NAME": "D2SwinTransformer"}
    if kind == "resnet":
        return read_resnet(section, where)
    if kind == "timm_backbone":
        return read_timm(str(section.get("backbone")), where)
    raise ValueError(
        f"{where}: model_type is {short(kind)}; swin, resnet and timm_backbone are known here"
    )


def _section(config: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """A part of config.json; {} if it is not there."""
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{where}: {name} should be an object, but is {short(section)}")
    return section


def _near(value: list, own: Any) -> bool:
    """Whether two lists of numbers are the same but for rounding."""
    numbers = [x for x in (*value, *own) if isinstance(x, (int, float))]
    same = len(own) == len(value) and len(numbers) == 2 * len(value)
    return same and all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(value, own, strict=True))


def _description(cfg: CfgNode, names: Sequence[str], data: Data, licence: str) -> dict[str, Any]:
    """The description of the file: the folder's names, things as the data set has them."""
    found = describe(cfg)
    if found is None:
        things = "panoptic" in data.tasks or data.tasks == ("instance",)
        rows = [{"name": name, "id": i, "isthing": things} for i, name in enumerate(names)]
        found = description(cfg, rows, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
    for row, name in zip(found["classes"], names, strict=True):
        row["name"] = name
    return found | {"license": licence}
