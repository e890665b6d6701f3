"""Files of a result."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_bytes, write_image
from . import formats

if TYPE_CHECKING:
    from .results import ImageResult

QUALITY = 92  # of the JPEG files


def save(
    result: "ImageResult",
    folder: str | os.PathLike,
    *,
    label_png: bool,
    overlay: bool,
    coco: bool,
    panoptic_png: bool,
    categories: bool,
    own_ids: bool,
) -> list[Path]:
    """Write the files that are asked for (`ImageResult.save`)."""
    written: list[Path] = []
    if label_png:
        written.append(_path(result, folder, ".png"))
        write_image(written[-1], label_values(result, own_ids))
    if overlay:
        written.append(_path(result, folder, "_overlay.jpg"))
        write_image(written[-1], result.plot(), quality=QUALITY)
    if coco:
        written.append(_path(result, folder, "_coco.json"))
        _write_json(written[-1], result.to_coco(result.name))
    if panoptic_png:
        written += _save_panoptic(result, folder)
    if categories:
        written.append(_path(result, folder, "_categories.json"))
        _write_json(written[-1], formats.category_rows(result))
    return written


def files_of(name: str, folder: str | os.PathLike, wanted: dict[str, bool]) -> list[Path]:
    """The files that `save` writes for a result of this name."""
    ends = {
        "label_png": (".png",),
        "overlay": ("_overlay.jpg",),
        "coco": ("_coco.json",),
        "panoptic_png": ("_panoptic.png", "_panoptic.json"),
        "categories": ("_categories.json",),
    }
    return [_named(name, folder, end) for key, some in ends.items() if wanted[key] for end in some]


def label_values(result: "ImageResult", own_ids: bool = False) -> np.ndarray:
    """(H, W) of 8 or 16 bits; no class is 255, or 65535 with more than 255 classes."""
    if own_ids:
        return result.labels(own_ids=True)
    labels, count = result.labels(), len(result.classes)
    kind = np.uint8 if count < 2**8 else np.uint16
    return np.where(labels >= count, np.iinfo(kind).max, labels).astype(kind)


def _save_panoptic(result: "ImageResult", folder: str | os.PathLike) -> list[Path]:
    if result.panoptic is None:
        raise ValueError(
            "panoptic_png needs a panoptic result: MODEL.MASK_FORMER.TEST.PANOPTIC_ON True"
        )
    picture, entry = formats.to_coco_panoptic(result)
    paths = [_path(result, folder, f"_panoptic.{end}") for end in ("png", "json")]
    write_image(paths[0], picture)
    _write_json(paths[1], entry)
    return paths


def _path(result: "ImageResult", folder: str | os.PathLike, end: str) -> Path:
    path = _named(result.name, folder, end)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _named(name: str, folder: str | os.PathLike, end: str) -> Path:
    """`folder`/a/b<end> for a result of the name a/b.jpg."""
    stem = Path(name)
    if stem.is_absolute() or ".." in stem.parts:
        stem = Path(stem.name)
    return Path(folder) / stem.parent / f"{stem.stem}{end}"


def _write_json(path: Path, content: Any) -> None:
    write_bytes(path, json.dumps(content, indent=1).encode())


