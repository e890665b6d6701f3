"""Write a small data set as an example of own data: images, label images, and two yaml files.

    python examples/own_data.py street           # writes the folder street
    rankseg-d2 dataset check street/street.yaml
    python train_net.py --config-file street/train.yaml

Each image is a street under a sky, with cars, trees, people and signs. In the label images 0 is
ignored and the classes count from 1, as many labelling tools write them; no conversion is needed.
"""

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
SIZE = (128, 96)  # width, height
DATA = """\
name: street
images: images
labels: labels
classes: [sky, road, car, tree, person, sign]
label_offset: 1          # the labels count from 1
background: ignore       # and 0 is ignored
splits: {train: 0.8, val: 0.2}
"""
TRAINING = """\
_BASE_: shapes/panoptic/r10t_rankseg
MODEL:
  MASK_FORMER:
    TEST:
      PANOPTIC_ON: False
  RANKSEG:
    TOPK: 5
DATASETS:
  FILES: [street.yaml]
INPUT:
  DATASET_MAPPER_NAME: mask_former_semantic
SOLVER:
  MAX_ITER: 150
OUTPUT_DIR: output/street
"""


def draw(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An image and its label image."""
    picture, labels = Image.new("RGB", SIZE), Image.new("L", SIZE)
    horizon = int(rng.integers(35, 60))
    paint(picture, labels, "rectangle", (0, 0, SIZE[0], horizon - 2), "sky")  # 2 rows are ignored
    paint(picture, labels, "rectangle", (0, horizon, *SIZE), "road")
    for name, shape, width, height in [
        ("tree", "ellipse", 26, 40),
        ("sign", "rectangle", 8, 26),
        ("car", "rectangle", 34, 18),
        ("person", "ellipse", 8, 24),
    ]:
        for _ in range(rng.integers(0, 3)):
            x, y = rng.integers(0, SIZE[0] - width), rng.integers(horizon, SIZE[1])
            paint(picture, labels, shape, (x, y - height, x + width, y), name)
    noise = rng.normal(0, 18, (SIZE[1], SIZE[0], 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)), labels


def paint(picture, labels, shape, box, name):
    for image, fill in ((picture, CLASSES[name]), (labels, list(CLASSES).index(name) + 1)):
        getattr(ImageDraw.Draw(image), shape)([int(side) for side in box], fill=fill)


def main(folder: str = "street", count: int = 100) -> None:
    for name in ("images", "labels"):
        Path(folder, name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        picture, labels = draw(rng)
        picture.save(Path(folder, "images", f"{i:04d}.jpg"))
        labels.save(Path(folder, "labels", f"{i:04d}.png"))
    Path(folder, "street.yaml").write_text(DATA, encoding="utf-8")
    Path(folder, "train.yaml").write_text(TRAINING, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:2])
