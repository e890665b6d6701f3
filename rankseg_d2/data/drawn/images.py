"""The files of images: JPEG images, label PNG, COCO panoptic and instance json."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..formats import rle
from .split import JPEG_QUALITY, MIN_AREA, SPLITS, SplitSpec, draw_all

_IMAGES_PER_PROCESS = 300  # as many are drawn in the seconds that a process takes to start


@dataclass(frozen=True)
class ImageSpec(SplitSpec):
    """The parameters of a split of images."""

    num_images: int
    height: int
    width: int
    version: int  # of drawing and files: splits of another version are made again

    def __post_init__(self) -> None:
        self._check(self.num_images, "image")

    def write(self, folder: Path, num_workers: int) -> None:
        for name in ("images", "labels", "panoptic"):
            (folder / name).mkdir()
        draw_one = functools.partial(_draw_image, folder, self)
        title = f"{self.name} {self.split}"
        drawn = draw_all(draw_one, self.num_images, title, num_workers, _IMAGES_PER_PROCESS)
        _write_jsons(folder, self, drawn)


def ignore_label(num_categories: int) -> int:
    """The label of ignored pixels: 255, or 65535 if 255 is a category."""
    return 255 if num_categories <= 255 else 65535


def _draw_image(folder: Path, spec: ImageSpec, index: int) -> dict:
    """Write the files of one image; returns its panoptic annotation and the masks of its things."""
    from PIL import Image

    scene = spec.make_scene((spec.num_categories, SPLITS.index(spec.split), index))
    picture, numbers = spec.draw(scene)
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
        "rles": encode(ids, segments, spec.vocabulary),
    }


def annotate(scene: Any, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict]]:
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


def encode(ids: np.ndarray, segments: list[dict], vocabulary: Any) -> dict[int, dict]:
    """Segment id -> RLE, for the things."""
    things = [s["id"] for s in segments if s["category_id"] <= vocabulary.num_things]
    masks = ids == np.array(things, ids.dtype)[:, None, None]  # (N, H, W)
    return {
        number: rle.as_text(mask)
        for number, mask in zip(things, rle.encode_each(masks), strict=True)
    }


def _write_jsons(folder: Path, spec: ImageSpec, annotations: list[dict]) -> None:
    rles = [annotation.pop("rles") for annotation in annotations]
    size = {"height": spec.height, "width": spec.width}
    images = [
        {"id": a["image_id"], "file_name": a["file_name"].replace(".png", ".jpg"), **size}
        for a in annotations
    ]
    categories = coco_categories(spec.vocabulary)
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


def coco_categories(vocabulary: Any) -> list[dict]:
    """The categories of COCO's json; ids start at 1, as in COCO."""
    categories = vocabulary.categories
    count = len(categories)
    colors = np.random.default_rng(count).integers(32, 256, (count, 3)).tolist()
    return [
        {
            "id": number,
            "name": category.name,
            "supercategory": category.supercategory,
            "isthing": int(category.is_thing),
            "color": color,
        }
        for number, (category, color) in enumerate(zip(categories, colors, strict=True), 1)
    ]
