"""Files of a result: `result` is an ImageResult."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_bytes
from . import formats

QUALITY = 92  # of the JPEG files
ENDS = {  # argument of `save` -> the ends of its files' names
    "label_png": (".png",),
    "overlay": ("_overlay.jpg",),
    "coco": ("_coco.json",),
    "panoptic_png": ("_panoptic.png", "_panoptic.json"),
    "categories": ("_categories.json",),
    "explore": ("_explore.html",),
}


def save(
    result: Any,
    folder: str | os.PathLike,
    *,
    label_png: bool,
    overlay: bool,
    coco: bool,
    panoptic_png: bool,
    categories: bool,
    explore: bool,
    own_ids: bool,
    overwrite: bool,
) -> list[Path]:
    """Write the files that are asked for (`ImageResult.save`)."""
    files: dict[str, bytes] = {}  # by the end of the name
    if label_png:
        files[".png"] = _encoded(label_values(result, own_ids), "png")
    if overlay:
        files["_overlay.jpg"] = _encoded(result.plot(), "jpeg", quality=QUALITY)
    if coco:
        files["_coco.json"] = json_bytes(result.to_coco(result.name))
    if panoptic_png:
        if result.panoptic is None:
            raise ValueError(NO_PANOPTIC)
        picture, entry = formats.to_coco_panoptic(result)
        files["_panoptic.png"] = _encoded(picture, "png")
        files["_panoptic.json"] = json_bytes(entry)
    if categories:
        files["_categories.json"] = json_bytes(formats.category_rows(result))
    if explore:
        files["_explore.html"] = result.page()
    return write_files(files, result.name, folder, result.path, overwrite)


def write_files(
    files: dict[str, bytes], name: str, folder: str | os.PathLike, source: str, overwrite: bool
) -> list[Path]:
    """Write contents, by the ends of their names, for a result of this name; all or none."""
    paths = {end: path_of(name, folder, end) for end in files}
    for end, path in paths.items():
        check_free(path, files[end], source, overwrite)
    for end, path in paths.items():
        write_bytes(path, files[end])
    return list(paths.values())


NO_PANOPTIC = (
    "panoptic_png needs panoptic results: a model that gives them, with "
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON True"
)


def check_free(path: Path, content: bytes, source: str, overwrite: bool) -> None:
    """An error where `source` itself, or something else than the content, would be replaced."""
    if not path.exists():
        return
    if source and os.path.exists(source) and path.samefile(source):
        raise FileExistsError(f"{path} is the image itself; save into another folder")
    if not overwrite and path.read_bytes() != content:
        raise FileExistsError(
            f"{path} exists with other content; give overwrite=True to replace it, or save into "
            "another folder"
        )


def files_of(name: str, folder: str | os.PathLike, wanted: dict[str, bool]) -> list[Path]:
    """The files that `save` writes for a result of this name."""
    return [path_of(name, folder, end) for key in wanted if wanted[key] for end in ENDS[key]]


def path_of(name: str, folder: str | os.PathLike, end: str) -> Path:
    """<folder>/a/b<end> for a result of the name a/b.jpg."""
    return Path(folder) / f"{formats.stem(name)}{end}"


def label_values(result: Any, own_ids: bool = False) -> np.ndarray:
    """(H, W) of 8 or 16 bits; no class is 255, or 65535 with more than 255 classes."""
    labels = result.labels(own_ids)
    if not own_ids:
        labels[labels == len(result.classes)] = np.iinfo(labels.dtype).max
    return labels


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def json_bytes(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()
