"""Write a small data set as an example of own data: images, labels, and two yaml files.

    python examples/own_data.py street               # label images, in the folder street
    python examples/own_data.py cars instances       # a COCO instance json
    python examples/own_data.py scenes panoptic      # a COCO panoptic json and its PNG files
    rankseg-d2 dataset check street/street.yaml
    python train_net.py --config-file street/train.yaml

Each image is a street under a sky, with cars, trees, people and signs. In the label images 0 is
ignored and the classes count from 1, as many labelling tools write them; no conversion is needed.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = {
    "sky": (120, 170, 220),
    "road": (100, 100, 105),
    "car": (190, 40, 40),
    "tree": (40, 120, 50),
    "person": (230, 190, 120),
    "sign": (240, 220, 40),
}
NAMES = list(CLASSES)
THINGS = ("car", "person", "sign")  # objects that are told apart; the others are stuff
SIZE = (128, 96)  # width, height
COUNT = 100  # images
TRAIN, VAL = range(80), range(80, COUNT)

DATA = {
    "semantic": """\
name: {name}
images: images
labels: labels
classes: [sky, road, car, tree, person, sign]
label_offset: 1          # the labels count from 1
background: ignore       # and 0 is ignored
splits: {{train: 0.8, val: 0.2}}
""",
    "instances": """\
name: {name}
images: images
splits:
  train: {{labels: train.json}}
  val: {{labels: val.json}}
""",
    "panoptic": """\
name: {name}
images: images
splits:
  train: {{labels: {{json: train.json, folder: segments}}}}
  val: {{labels: {{json: val.json, folder: segments}}}}
""",
}
TRAINING = """\
_BASE_: shapes/panoptic/r10t_rankseg
MODEL:
  MASK_FORMER:
    TEST:
{tasks}
  RANKSEG:
    TOPK: {topk}
DATASETS:
  FILES: [{name}.yaml]
INPUT:
  DATASET_MAPPER_NAME: {mapper}
SOLVER:
  MAX_ITER: 150
OUTPUT_DIR: output/{name}
"""
# Keys of MODEL.MASK_FORMER.TEST, TOPK, and the mapper
KINDS = {
    "semantic": (["PANOPTIC_ON: False"], 5, "mask_former_semantic"),
    "instances": (
        ["SEMANTIC_ON: False", "PANOPTIC_ON: False", "INSTANCE_ON: True"], 3, "mask_former_instance"
    ),
    "panoptic": (["PANOPTIC_ON: True", "SEMANTIC_ON: True"], 5, "mask_former_panoptic"),
}


class Drawing:
    """An image and what is in it, one shape after the other."""

    def __init__(self) -> None:
        self.picture = Image.new("RGB", SIZE)
        self.shapes = Image.new("I", SIZE)  # the number of the shape that is on top, from 1
        self.names = []
        self.outlines = []

    def add(self, name: str, kind: str, box: tuple[float, ...]) -> None:
        """Draw a rectangle or ellipse of a class."""
        x, y, u, v = map(int, box)
        corners = [(x, y), (u, y), (u, v), (x, v)]
        if kind == "ellipse":
            angles = [math.tau * i / 24 for i in range(24)]
            corners = [((x + u + (u - x) * math.cos(a)) / 2, (y + v + (v - y) * math.sin(a)) / 2)
                       for a in angles]
        self.names.append(name)
        self.outlines.append(corners)
        for image, fill in ((self.picture, CLASSES[name]), (self.shapes, len(self.names))):
            ImageDraw.Draw(image).polygon(corners, fill=fill)


def draw(rng: np.random.Generator) -> Drawing:
    """A street."""
    drawing = Drawing()
    horizon = int(rng.integers(35, 60))
    drawing.add("sky", "rectangle", (0, 0, SIZE[0], horizon - 2))  # no class in 2 rows
    drawing.add("road", "rectangle", (0, horizon, *SIZE))
    for name, kind, width, height in [
        ("tree", "ellipse", 26, 40),
        ("sign", "rectangle", 8, 26),
        ("car", "rectangle", 34, 18),
        ("person", "ellipse", 8, 24),
    ]:
        for _ in range(rng.integers(0, 3)):
            x, y = rng.integers(0, SIZE[0] - width), rng.integers(horizon, SIZE[1])
            drawing.add(name, kind, (x, y - height, x + width, y))
    return drawing


def write_label_images(folder: Path, drawings: list[Drawing]) -> None:
    """labels/<image>.png: the number of the class, from 1; 0 for none."""
    for i, drawing in enumerate(drawings):
        numbers = np.array([0, *(NAMES.index(name) + 1 for name in drawing.names)], np.uint8)
        save(numbers[np.asarray(drawing.shapes)], folder / "labels" / f"{i:04d}.png")


def write_instances(folder: Path, drawings: list[Drawing]) -> None:
    """train.json and val.json: the polygons of the things."""
    categories = [{"id": i, "name": name} for i, name in enumerate(THINGS, 1)]
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        notes = []
        for i in numbers:
            for name, corners in zip(drawings[i].names, drawings[i].outlines, strict=True):
                if name in THINGS:
                    low, high = np.min(corners, 0), np.max(corners, 0)
                    notes.append({
                        "id": len(notes) + 1,
                        "image_id": i,
                        "category_id": THINGS.index(name) + 1,
                        "segmentation": [[float(side) for corner in corners for side in corner]],
                        "bbox": [*low.tolist(), *(high - low).tolist()],
                        "area": float(np.prod(high - low)),
                        "iscrowd": 0,
                    })  # fmt: skip
        write_json(folder / f"{split}.json", numbers, notes, categories)


def write_panoptic(folder: Path, drawings: list[Drawing]) -> None:
    """train.json and val.json, and segments/<image>.png: the id of each segment as a colour."""
    categories = [{"id": i, "name": name, "isthing": int(name in THINGS), "color": CLASSES[name]}
                  for i, name in enumerate(NAMES, 1)]
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        notes = []
        for i in numbers:
            names, shapes = drawings[i].names, np.array(drawings[i].shapes)
            for k, name in enumerate(names, 1):  # stuff of one class is one segment
                if name not in THINGS:
                    shapes[shapes == k] = names.index(name) + 1
            ids = [int(k) for k in np.unique(shapes) if k]
            segments = [{"id": k, "category_id": NAMES.index(names[k - 1]) + 1, "iscrowd": 0,
                         "area": int((shapes == k).sum())} for k in ids]
            colors = np.zeros((*shapes.shape, 3), np.uint8)
            colors[..., 0] = shapes  # ids below 256: red alone
            save(colors, folder / "segments" / f"{i:04d}.png")
            notes.append({"image_id": i, "file_name": f"{i:04d}.png", "segments_info": segments})
        write_json(folder / f"{split}.json", numbers, notes, categories)


def write_json(path: Path, numbers: range, notes: list[dict], categories: list[dict]) -> None:
    images = [{"id": i, "file_name": f"{i:04d}.jpg", "width": SIZE[0], "height": SIZE[1]}
              for i in numbers]
    content = {"images": images, "annotations": notes, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def main(name: str = "street", kind: str = "semantic") -> None:
    """Write the folder `name` with labels of a kind, a key of KINDS."""
    if kind not in KINDS:
        raise SystemExit(f"the kind must be one of {', '.join(KINDS)}; got {kind!r}")
    folder, rng = Path(name), np.random.default_rng(0)
    drawings = [draw(rng) for _ in range(COUNT)]
    for i, drawing in enumerate(drawings):
        noisy = np.asarray(drawing.picture) + rng.normal(0, 18, (*SIZE[::-1], 3))
        save(noisy.clip(0, 255).astype(np.uint8), folder / "images" / f"{i:04d}.jpg")
    write = {"semantic": write_label_images, "instances": write_instances,
             "panoptic": write_panoptic}  # fmt: skip
    write[kind](folder, drawings)
    switches, topk, mapper = KINDS[kind]
    tasks = "\n".join(f"      {switch}" for switch in switches)
    data = DATA[kind].format(name=folder.name)
    training = TRAINING.format(name=folder.name, tasks=tasks, topk=topk, mapper=mapper)
    (folder / f"{folder.name}.yaml").write_text(data, encoding="utf-8")
    (folder / "train.yaml").write_text(training, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
