"""A short training on built-in scenes, as a script: data folder, OUTPUT_DIR, options."""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import sys

import torch

from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Trainer

CATEGORIES = 500  # so many that PyTorch shares the rows of class embeddings out among threads
OPTIONS = [
    "DATASETS.TRAIN", f"('shapes{CATEGORIES}_panoptic_train',)",
    "DATASETS.TEST", "()",
    "MODEL.RANKSEG.TOPK", 450,
    "SOLVER.IMS_PER_BATCH", 6,
    "SOLVER.MAX_ITER", 5,
    "SOLVER.WARMUP_ITERS", 0,
]  # fmt: skip


def main(data, output, *options):
    torch.manual_seed(0)
    torch.set_num_threads(2)
    register_shapes(CATEGORIES, root=data, num_images={"train": 8, "val": 2})
    options = ["OUTPUT_DIR", output, *OPTIONS, *options]
    Trainer(get_config("shapes/panoptic/r10t_rankseg", options)).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
