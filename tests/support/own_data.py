"""Tiny data sets of one's own, of each kind, on disk."""

import json

import numpy as np
import yaml
from PIL import Image

CLASSES = ["road", "sky", "car", "bus", "tree"]
SIZE = (24, 32)  # height, width
NAMES = [f"{i:03d}" for i in range(10)]
PARTS = {"train": 0.7, "val": 0.3}  # by their hashes, 8 and 2 of these names


def label_map(number, classes=5, size=SIZE):
    """Class ids (H, W): 1 to 4 of them, in stripes."""
    rng = np.random.default_rng(number)
    ids = rng.choice(classes, 1 + number % 4, replace=False)
    return np.repeat(ids, -(-size[1] // len(ids)))[: size[1]][None].repeat(size[0], 0)


def write_image(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_label(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16 if values.max() > 255 else np.uint8)).save(path)


def write_yaml(folder, **keys):
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


def semantic(folder, offset=0, names=NAMES, subfolder="", **keys):
    """A yaml with images/*.jpg and labels/*.png; returns it and the class ids by name."""
    maps = {name: label_map(i) for i, name in enumerate(names)}
    for name, ids in maps.items():
        write_image(folder / "images" / subfolder / f"{name}.jpg")
        write_label(folder / "labels" / subfolder / f"{name}.png", ids + offset)
    keys = {
        "name": "street",
        "images": "images",
        "labels": "labels",
        "classes": CLASSES,
        "label_offset": offset,
        "splits": dict(PARTS),
    } | keys
    return write_yaml(folder, **keys), maps


CATEGORIES = [
    {"id": 7, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 3, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
    {"id": 9, "name": "bus", "isthing": 1, "color": [0, 60, 100]},
]


def image_entries(names=NAMES, size=SIZE):
    return [
        {"id": i + 1, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]}
        for i, name in enumerate(names)
    ]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def instances(folder, names=NAMES, **keys):
    """A yaml with one COCO instance json: the image i has a car, and a bus if i is odd."""
    annotations = []
    for i, name in enumerate(names):
        write_image(folder / "images" / f"{name}.jpg")
        for number, category in enumerate([7, 9][: 1 + i % 2]):
            x, y, w, h = 2 + 12 * number, 4, 8, 10
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    things = [entry for entry in CATEGORIES if entry["isthing"]]
    content = {"images": image_entries(names), "annotations": annotations, "categories": things}
    write_json(folder / "instances.json", content)
    keys = {
        "name": "cars",
        "images": "images",
        "labels": "instances.json",
        "splits": dict(PARTS),
    } | keys
    return write_yaml(folder, **keys), content


def panoptic(folder, names=NAMES, **keys):
    """A yaml with one COCO panoptic json and its PNG files: sky, a car, and a crowd of buses."""
    annotations = []
    for i, name in enumerate(names):
        write_image(folder / "images" / f"{name}.jpg")
        ids = np.zeros(SIZE, np.int64)
        ids[:10], ids[10:20, :12], ids[10:20, 20:] = 70000 + i, 300 + i, 5
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        path = folder / "panoptic" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colors).save(path)
        segments = [
            {"id": 70000 + i, "category_id": 3, "iscrowd": 0, "area": 320},
            {"id": 300 + i, "category_id": 7, "iscrowd": 0, "area": 120},
            {"id": 5, "category_id": 9, "iscrowd": 1, "area": 120},
        ]
        annotations.append(
            {"image_id": i + 1, "file_name": f"{name}.png", "segments_info": segments}
        )
    content = {
        "images": image_entries(names), "annotations": annotations, "categories": CATEGORIES
    }  # fmt: skip
    write_json(folder / "panoptic.json", content)
    keys = {
        "name": "scenes",
        "images": "images",
        "labels": {"json": "panoptic.json", "folder": "panoptic"},
        "splits": dict(PARTS),
    } | keys
    return write_yaml(folder, **keys), content
