"""A model's folder as transformers writes it: weights, config.json, preprocessing, model card."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...checkpoints import weights_in
from ...errors import short

CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
KINDS = {"mask2former": "Mask2Former", "maskformer": "MaskFormer"}
# Of the weights that Mask2Former's and MaskFormer's authors published, whose cards say "other".
_PUBLISHED = "Mask2Former's and MaskFormer's own weights are under CC BY-NC 4.0"


@dataclass(frozen=True)
class Folder:
    """The files of one model of ours, by another library."""

    path: Path
    weights: Path
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]  # {} without a file
    licence: str  # a sentence

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return "maskformer" if self.config["model_type"] == "maskformer" else "mask2former"

    @property
    def is_video(self) -> bool:
        names = [self.config["model_type"], *(self.config.get("architectures") or ())]
        return any("video" in str(name).lower() for name in names)

    @property
    def names(self) -> str:
        """What the model is called, in lower case."""
        return f"{self.path.name} {self.config.get('_name_or_path', '')}".lower()


def find_folder(path: str | os.PathLike) -> Folder | None:
    """The folder that `path` is, or that of a weight file; None without a model of KINDS in it."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / CONFIG).is_file():
        return None
    config = _read(folder / CONFIG)
    if str(config.get("model_type")).removeprefix("video_").removeprefix("video-") not in KINDS:
        return None
    preprocessor = folder / PREPROCESSOR
    return Folder(
        folder.resolve(),
        Path(weights_in(path)) if path.is_dir() else path,
        config,
        _read(preprocessor) if preprocessor.is_file() else {},
        _licence(folder, config),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); download or copy it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {short(found)}, not an object; download or copy it again")
    return found


def _licence(folder: Path, config: Mapping[str, Any]) -> str:
    """The licence of the weights as the model card states it, or where to look."""
    card = _head_of_card(folder / CARD)
    name = card.get("license")
    if name:
        more = [card[key] for key in ("license_name", "license_link") if card.get(key)]
        if name == "other" and not more:
            more = [_PUBLISHED]
        return f"{name}{f' ({more[0]})' if more else ''}, as {CARD} states"
    source = str(config.get("_name_or_path", ""))
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        return f"not stated: see https://huggingface.co/{source}"
    return f"not stated: see where {folder.resolve().name} comes from"


def _head_of_card(path: Path) -> dict[str, Any]:
    """The facts in the yaml at the head of a model card; {} without them."""
    if not path.is_file():
        return {}
    head = re.match(r"\s*---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.S)
    try:
        found = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
