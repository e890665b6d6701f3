"""Write a split of `shapes` to disk: JPEG images, label PNG, COCO panoptic and instance json.

A split is built in a hidden folder beside its own, which is renamed when it is complete. The
process that builds it holds a lock; the system releases the lock if the process dies.
`videos.py` writes the files of videos.
"""

import functools
import json
import logging
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files import locked, read_json
from ..formats import rle
from ..prepare.processes import run_jobs, usable_cpus
from .scene import HARD, PLAIN, Scene, draw, make_scene
from .vocabulary import Vocabulary, check_num_categories, make_vocabulary

logger = logging.getLogger(__name__)

VERSION = 2  # of drawing and files: splits of another version are made again
SPLITS = ("train", "val")
MIN_AREA = 16  # pixels; smaller segments are ignored
JPEG_QUALITY = 92
_IMAGES_PER_PROCESS = 300  # as many are drawn in the seconds that a process takes to start


@dataclass(frozen=True)
class Spec:
    """The parameters of a split of images; they determine its files."""

    num_categories: int
    split: str
    num_images: int
    hard: bool = False
    height: int = 96
    width: int = 128
    version: int = VERSION

    def __post_init__(self) -> None:
        check_split(self, self.num_images, "image")


def check_split(spec: Any, count: int, what: str) -> None:
    """Raise ValueError unless `spec` names a split of shapes with `count` >= 1 images or videos."""
    check_num_categories(spec.num_categories)
    if spec.split not in SPLITS or count < 1:
        raise ValueError(
            f"a split of shapes must be one of {', '.join(SPLITS)} with 1 {what} or more, got "
            f"{spec.split!r} with {count}"
        )


def ignore_label(num_categories: int) -> int:
    """The label of ignored pixels: 255, or 65535 if 255 is a category."""
    return 255 if num_categories <= 255 else 65535


def ensure_split(
    folder: Path, spec: Any, num_workers: int | None = None, write: Callable | None = None
) -> None:
    """Make the split in `folder` unless it exists; one process makes it, others wait.

    Args:
        spec: a dataclass, the parameters of the split; `folder` keeps them in spec.json.
        write: write(folder, spec, num_workers) makes the files; by default, those of images.
    """
    if _is_made(folder, spec):
        return
    try:
        with locked(folder.with_name(f".{folder.name}.lock"), f"writes shapes to {folder}"):
            if not _is_made(folder, spec):
                _build(folder, spec, num_workers or usable_cpus(), write or _write_images)
    except OSError as error:
        raise RuntimeError(
            f"shapes cannot be written to {folder} ({error.strerror}); set the environment "
            "variable DETECTRON2_DATASETS to a folder that you can write to, on a disk with space"
        ) from error


def _is_made(folder: Path, spec) -> bool:
    if not folder.exists():
        return False
    file = folder / "spec.json"
    if not file.is_file():
        raise RuntimeError(
            f"shapes would be written to {folder}, but that holds other files (no spec.json); "
            "move it, or set the environment variable DETECTRON2_DATASETS to another folder"
        )
    return read_json(file) == asdict(spec)


def _build(folder: Path, spec, num_workers: int, write: Callable) -> None:
    _remove_leftovers(folder)
    logger.info("Drawing shapes, once, into %s", folder)
    # Not the name of a killed build, whose workers may write for a moment after it.
    making = folder.with_name(f".{folder.name}.making.{secrets.token_hex(8)}")
    making.mkdir()
    write(making, spec, num_workers)
    (making / "spec.json").write_text(json.dumps(asdict(spec)))
    if folder.exists():  # of another version or size
        folder.rename(making.with_suffix(".old"))
    making.rename(folder)
    _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.parent.glob(f".{folder.name}.making.*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_images(folder: Path, spec: Spec, num_workers: int) -> None:
    for name in ("images", "labels", "panoptic"):
        (folder / name).mkdir()
    draw_one = functools.partial(_draw_image, folder, spec)
    annotations = draw_all(draw_one, spec.num_images, f"shapes {spec.split}", num_workers)
    _write_jsons(folder, spec, annotations)


def draw_all(
    draw_one: Callable[[int], dict],
    count: int,
    title: str,
    num_workers: int,
    per_process: int = _IMAGES_PER_PROCESS,
) -> list[dict]:
    """The results of `draw_one` for 0 to count - 1; it writes files, in several processes.

    One process is used for every `per_process` calls, because its start takes as long as these.
    """
    workers = min(num_workers, 1 + count // per_process)
    return [drawn for _, drawn in run_jobs(draw_one, range(count), count, title, workers)]


def _draw_image(folder: Path, spec: Spec, index: int) -> dict:
    """Write the files of one image; returns its panoptic annotation and the masks of its things."""
    from PIL import Image

    vocabulary = make_vocabulary(spec.num_categories)
    seed = (spec.num_categories, SPLITS.index(spec.split), index)
    style = HARD if spec.hard else PLAIN
    scene = make_scene(vocabulary, seed, spec.width / spec.height, style)
    picture, numbers = draw(scene, spec.height, spec.width)
    labels, ids, segments = annotate(scene, numbers)
    name = f"{index:06d}"
    Image.fromarray(picture).save(folder / "images" / f"{name}.jpg", quality=JPEG_QUALITY)
    Image.fromarray(labels).save(folder / "labels" / f"{name}.png")
    channels = [ids & 255, ids >> 8 & 255, ids >> 16]
    rgb = np.stack(channels, -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "panoptic" / f"{name}.png")
    return {
        "image_id": index + 1,
        "file_name": f"{name}.png",
        "segments_info": segments,
        "rles": encode(ids, segments, vocabulary),
    }


def annotate(scene: Scene, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Class labels (H, W), segment ids (H, W) with 0 for ignored, and COCO's segments_info."""
    paints = [*scene.grounds, *scene.things]
    areas = np.bincount(numbers.ravel(), minlength=len(paints))
    num_categories = len(scene.vocabulary.categories)
    ignore = ignore_label(num_categories)
    labels = np.full(len(paints), ignore, np.uint8 if ignore == 255 else np.uint16)
    ids = np.zeros(len(paints), np.int32)
    segments = []
    for number in np.flatnonzero(areas >= MIN_AREA).tolist():
        labels[number] = category = paints[number].category
        ids[number] = 1000 * (category + 1) + number
        segments.append(
            {
                "id": int(ids[number]),
                "category_id": category + 1,
                "area": int(areas[number]),
                "bbox": _box(numbers == number),
                "iscrowd": 0,
            }
        )
    return labels[numbers], ids[numbers], segments


def _box(mask: np.ndarray) -> list[int]:
    """x, y, width, height."""
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [int(value) for value in (x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1)]


def encode(ids: np.ndarray, segments: list[dict], vocabulary: Vocabulary) -> dict[int, dict]:
    """Segment id -> RLE, for the things."""
    things = [s["id"] for s in segments if s["category_id"] <= vocabulary.num_things]
    masks = ids == np.array(things, ids.dtype)[:, None, None]  # (N, H, W)
    return {
        number: rle.as_text(mask)
        for number, mask in zip(things, rle.encode_each(masks), strict=True)
    }


def _write_jsons(folder: Path, spec: Spec, annotations: list[dict]) -> None:
    rles = [annotation.pop("rles") for annotation in annotations]
    size = {"height": spec.height, "width": spec.width}
    images = [
        {"id": a["image_id"], "file_name": a["file_name"].replace(".png", ".jpg"), **size}
        for a in annotations
    ]
    categories = coco_categories(spec.num_categories)
    instances = [
        {**segment, "image_id": annotation["image_id"], "segmentation": masks[segment["id"]]}
        for annotation, masks in zip(annotations, rles, strict=True)
        for segment in annotation["segments_info"]
        if segment["id"] in masks
    ]
    for number, instance in enumerate(instances, 1):  # to pycocotools, id 0 means no match
        instance["id"] = number
    things = [category for category in categories if category["isthing"]]
    for name, rows, kinds in [
        ("panoptic", annotations, categories),
        ("instances", instances, things),
    ]:
        content = {"images": images, "annotations": rows, "categories": kinds}
        (folder / f"{name}.json").write_text(json.dumps(content))


def coco_categories(num_categories: int) -> list[dict]:
    """The categories of COCO's json; ids start at 1, as in COCO."""
    categories = make_vocabulary(num_categories).categories
    colors = np.random.default_rng(num_categories).integers(32, 256, (num_categories, 3)).tolist()
    return [
        {
            "id": number,
            "name": category.name,
            "supercategory": category.form,
            "isthing": int(category.is_thing),
            "color": color,
        }
        for number, (category, color) in enumerate(zip(categories, colors, strict=True), 1)
    ]
