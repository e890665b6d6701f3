"""Tiny data sets as labelling tools write them: two squares, a leaf and a stem, per image."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .own_data import write_image

SIZE = (24, 32)  # height, width
LEAF, STEM = (2, 3, 12, 15), (8, 9, 30, 21)  # left, top, right, bottom; the stem is larger
NAMES = ["leaf", "stem"]
IMAGES = [f"{i:03d}" for i in range(10)]
COLORS = {0: (0, 0, 0), 1: (200, 30, 30), 2: (30, 200, 30)}


def class_map(first=0):
    """The label map of an image: background, leaf, stem count from `first`; the leaf is on top."""
    labels = np.full(SIZE, first)
    for number, (x, y, u, v) in ((2, STEM), (1, LEAF)):
        labels[y:v, x:u] = first + number
    return labels


def corners(box):
    x, y, u, v = box
    return [[x, y], [u, y], [u, v], [x, v]]


def images(folder: Path, names=IMAGES, size=SIZE):
    for name in names:
        write_image(folder / f"{name}.jpg", size)


def yolo_text(boxes=((0, LEAF), (1, STEM))):
    lines = []
    for number, box in boxes:
        points = [f"{x / SIZE[1]:.6f} {y / SIZE[0]:.6f}" for x, y in corners(box)]
        lines.append(" ".join([str(number), *points]))
    return "\n".join(lines) + "\n"


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def yolo(folder: Path, splits=("train", "val"), names=IMAGES[:4]):
    """images/<split>, labels/<split> and data.yaml; returns an own yaml of it."""
    for split in splits:
        images(folder / "images" / split, names)
        for name in names:
            write(folder / "labels" / split / f"{name}.txt", yolo_text())
    paths = "".join(f"{split}: images/{split}\n" for split in splits)
    write(folder / "data.yaml", f"path: .\n{paths}names:\n  0: leaf\n  1: stem\n")
    write(folder / "my.yaml", "name: plants\nyolo: data.yaml\n")
    return folder / "my.yaml"


def labelme_json(shapes, size=SIZE):
    entries = [{"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}
               for label, kind, points in shapes]
    return json.dumps({"version": "5.4.1", "flags": {}, "shapes": entries, "imagePath": "a.jpg",
                       "imageData": None, "imageHeight": size[0], "imageWidth": size[1]})


def labelme(folder: Path, shapes=None, names=IMAGES):
    """Photos and their json files in one folder; returns an own yaml of it."""
    shapes = shapes or [("leaf", "rectangle", [LEAF[:2], LEAF[2:]]),
                        ("stem", "polygon", corners(STEM))]
    images(folder / "photos", names)
    for name in names:
        write(folder / "photos" / f"{name}.json", labelme_json(shapes))
    write(folder / "my.yaml", "name: plants\nimages: photos\nlabels: {labelme: photos}\n"
          "classes: [leaf, stem]\nsplits: {train: 0.7, val: 0.3}\n")
    return folder / "my.yaml"


def coco(folder: Path, names=IMAGES):
    """images and instances.json; returns an own yaml of it."""
    images(folder / "images", names)
    notes = []
    for i in range(len(names)):
        for category, box in ((5, LEAF), (9, STEM)):
            x, y, u, v = box
            notes.append({"id": len(notes) + 1, "image_id": i, "category_id": category,
                          "segmentation": [sum(corners(box), [])], "iscrowd": 0,
                          "bbox": [x, y, u - x, v - y], "area": (u - x) * (v - y)})
    content = {"images": [{"id": i, "file_name": f"{name}.jpg", "height": SIZE[0],
                           "width": SIZE[1]} for i, name in enumerate(names)],
               "annotations": notes,
               "categories": [{"id": 5, "name": "leaf"}, {"id": 9, "name": "stem"}]}
    write(folder / "instances.json", json.dumps(content))
    write(folder / "my.yaml", "name: plants\nimages: images\nlabels: instances.json\n"
          "splits: {train: 0.7, val: 0.3}\n")
    return folder / "my.yaml"


def rgb(folder: Path, names=IMAGES, alpha=False, more=""):
    """images and label images with the colours of the classes; returns an own yaml of it."""
    images(folder / "images", names)
    (folder / "labels").mkdir(exist_ok=True)
    colors = np.array([COLORS[i] for i in range(3)], np.uint8)
    pixels = colors[class_map()]
    if alpha:
        pixels = np.dstack([pixels, np.full(SIZE, 99, np.uint8)])
    for name in names:
        Image.fromarray(pixels).save(folder / "labels" / f"{name}.png")
    classes = "".join(f"  - {{name: {name}, color: {list(COLORS[i])}}}\n"
                      for i, name in enumerate(["soil", *NAMES]))
    write(folder / "my.yaml", "name: plants\nimages: images\nlabels: labels\nsplits: {train: 0.7, "
          f"val: 0.3}}\nclasses:\n{classes}{more}")
    return folder / "my.yaml"


def values(folder: Path, table, names=IMAGES, **keys):
    """images and label images with values: {class of class_map: value}; returns an own yaml."""
    images(folder / "images", names)
    (folder / "labels").mkdir(exist_ok=True)
    lookup = np.array([table[i] for i in range(3)])
    for name in names:
        pixels = lookup[class_map()]
        pixels = pixels.astype(np.uint16 if pixels.max() > 255 else np.uint8)
        Image.fromarray(pixels).save(folder / "labels" / f"{name}.png")
    keys = {"name": "plants", "images": "images", "labels": "labels",
            "splits": {"train": 0.7, "val": 0.3}} | keys
    write(folder / "my.yaml", json.dumps(keys))  # json is yaml
    return folder / "my.yaml"
