"""What a checkpoint says of its model, and the small file of a trained model.

The description lies under "rankseg" in every checkpoint that a training writes, in plain JSON
types, and in the header of `model_best.safetensors`. It is all that a prediction needs beside the
weights: the config, the classes with their colours, and the data set's own ids.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .. import __version__, engine_name
from ..checkpoints import METADATA, is_whole, read_checkpoint
from ..files import replacing
from ..tasks import class_list
from .run_folder import last_checkpoint

PACKED = "model_best.safetensors"
FORMAT = 1  # of the description


def describe(cfg: CfgNode) -> dict[str, Any] | None:
    """The description of a model of this config; None where the classes have no names."""
    kind = class_list(cfg).removesuffix("_classes")  # stuff, of all classes, or thing
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(dataset) if dataset in MetadataCatalog.list() else None
        if metadata is not None and metadata.get(f"{kind}_classes"):
            ignore_label = int(metadata.get("ignore_label", 255))
            pairs = metadata.get("flip_pairs") or ()
            return description(cfg, _classes(metadata, kind), ignore_label, pairs)
    return None


def description(
    cfg: CfgNode,
    classes: list[dict],
    ignore_label: int = 255,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """The description of a model of this config that predicts these classes, as rows of dicts."""
    return {
        "format": FORMAT,
        "config": without_paths(cfg).dump(),
        "classes": classes,
        "ignore_label": ignore_label,
        "flip_pairs": [list(pair) for pair in flip_pairs],
        "datasets": {"train": list(cfg.DATASETS.TRAIN), "test": list(cfg.DATASETS.TEST)},
        "license": "of the weights: that of the data they were trained on, and of the weights that "
                   "the training started from",
        "started_from": os.path.basename(cfg.MODEL.WEIGHTS),
        "versions": _versions(),
    }  # fmt: skip


def without_paths(cfg: CfgNode) -> CfgNode:
    """The config without files and folders of this machine."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = "./output", ""
    if "FILES" in cfg.DATASETS:
        cfg.DATASETS.FILES = ()
    return cfg


def _versions() -> dict[str, str]:
    return {"rankseg_d2": __version__, "torch": str(torch.__version__), "engine": engine_name()}


def _classes(metadata: Any, kind: str) -> list[dict]:
    """Of each class: name, colour if it has one, whether it is a thing, and the data set's id."""
    names = list(getattr(metadata, f"{kind}_classes"))
    colors = metadata.get(f"{kind}_colors") or [None] * len(names)
    ids = _own_ids(metadata, kind, len(names))
    things = metadata.get("thing_dataset_id_to_contiguous_id")
    things = range(len(names)) if kind == "thing" else set((things or {}).values())
    return [
        {"name": str(name), "id": ids[i], "isthing": i in things}
        | ({} if color is None else {"color": [int(value) for value in color]})
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    ]


def _own_ids(metadata: Any, kind: str, count: int) -> list[int]:
    """The values that stand for the classes in the data set's own label files."""
    table = metadata.get("label_table")
    if table is not None:
        found = {int(label): value for value, label in reversed(list(enumerate(table)))}
    else:
        mapping = metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {}
        found = {int(label): int(value) for value, label in mapping.items()}
    return [found.get(i, i) for i in range(count)]


def pack(source: str | os.PathLike, output: str | os.PathLike | None = None) -> Path:
    """Write a model's weights and description as .safetensors; the path of the file.

    `source` is a run's folder, whose best checkpoint is taken, else the last one; or a checkpoint.
    """
    checkpoint = _best_of(Path(source)) if os.path.isdir(source) else Path(source)
    output = Path(output) if output is not None else checkpoint.with_name(PACKED)
    if output.suffix != ".safetensors":
        raise ValueError(f"the file to write, {output}, must end in .safetensors")
    content = read_checkpoint(checkpoint)
    description = content.get(METADATA)
    if not isinstance(description, dict) or "config" not in description:
        raise ValueError(
            f"{checkpoint} does not say what model and which classes it is of, since it was not "
            "written by a training of this version; give Predictor.from_config a config and these "
            "weights, or train for 0 iterations from them"
        )
    write_packed(output, content["model"], description)
    return output


def _best_of(folder: Path) -> Path:
    last = last_checkpoint(str(folder))
    for path in (folder / "model_best.pth", folder / "model_final.pth", last and Path(last)):
        if path and is_whole(path):
            return path
    raise FileNotFoundError(
        f"{folder} has no checkpoint: no model_best.pth, model_final.pth or last_checkpoint; name "
        "the folder of a run (its OUTPUT_DIR), or a file"
    )


def write_packed(path: Path, weights: dict[str, torch.Tensor], description: dict | None) -> None:
    """Write weights, and their description if they have one, as .safetensors."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        mode = temporary.stat().st_mode  # save_file lets nobody else read its files
        described = {METADATA: json.dumps(description)} if description else {}
        save_file(tensors, temporary, {"format": "pt"} | described)
        temporary.chmod(mode)
