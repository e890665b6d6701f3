"""Data, model and evaluator of your own with rankseg_d2, on either engine, in one file.

    python examples/toy_segmentation.py                      # train, evaluate, draw
    python examples/toy_segmentation.py --resume             # continue after an interruption
    python examples/toy_segmentation.py --eval-only MODEL.WEIGHTS output/toy/model_final.pth
    python examples/toy_segmentation.py SOLVER.MAX_ITER 200  # any config key

Scenes of discs, squares and triangles over a noisy ground are drawn on the fly; a small ResNet
learns to label their pixels. All classes below use detectron2's interfaces only.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.engine import default_argument_parser
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import Conv2d
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.utils import comm

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer, Trainer, build_train_loader, launch, setup
from rankseg_d2.evaluation import register_evaluator

CLASSES = ["ground", "disc", "square", "triangle"]
COLORS = [(90, 90, 90), (220, 80, 60), (70, 160, 220), (240, 200, 70)]
SIZE = 64
logger = logging.getLogger("rankseg_d2.toy")


# ---------------------------------------------------------------- data


def scenes(first_seed: int, count: int) -> list[dict]:
    """Records in detectron2's format; a scene follows from its seed."""
    return [
        {"image_id": seed, "seed": seed, "height": SIZE, "width": SIZE}
        for seed in range(first_seed, first_seed + count)
    ]


def draw_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and labels (H, W), both uint8."""
    rng = np.random.default_rng(seed)
    image = rng.normal(110, 25, (SIZE, SIZE, 3))
    labels = np.zeros((SIZE, SIZE), np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(rng.integers(1, 5)):
        kind = int(rng.integers(1, len(CLASSES)))
        cy, cx = rng.integers(8, SIZE - 8, 2)
        radius = int(rng.integers(5, 14))
        dy, dx = y - cy, x - cx
        inside = {
            1: dy**2 + dx**2 <= radius**2,
            2: np.maximum(abs(dy), abs(dx)) <= 0.85 * radius,
            3: (dy <= 0.8 * radius) & (2 * abs(dx) <= dy + radius),
        }[kind]
        color = COLORS[kind] + rng.normal(0, 45, 3)  # a hint, but not enough to tell the kind
        image[inside] = color + rng.normal(0, 25, (int(inside.sum()), 3))
        labels[inside] = kind
    return image.clip(0, 255).astype(np.uint8), labels


def map_scene(record: dict) -> dict:
    """Record -> sample, the input of the model."""
    image, labels = draw_scene(record["seed"])
    return {
        **record,
        "image": torch.from_numpy(image).permute(2, 0, 1),
        "sem_seg": torch.from_numpy(labels).long(),
    }


for name, first_seed, count in [("toy_train", 0, 2000), ("toy_val", 100_000, 100)]:
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda seed=first_seed, count=count: scenes(seed, count))
        MetadataCatalog.get(name).set(
            evaluator_type="toy_pixels", stuff_classes=CLASSES, ignore_label=255
        )


# ---------------------------------------------------------------- model


@META_ARCH_REGISTRY.register()
class ToySegmenter(nn.Module):
    """Adds up all scales of the backbone, then classifies each pixel."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.laterals = nn.ModuleDict(
            {
                name: Conv2d(shape.channels, 64, kernel_size=1)
                for name, shape in self.backbone.output_shape().items()
            }
        )
        self.classifier = Conv2d(64, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, kernel_size=3, padding=1)
        self.register_buffer("mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(-1, 1, 1), False)

    def forward(self, batched_inputs):
        images = torch.stack([sample["image"] for sample in batched_inputs]).to(self.mean.device)
        features = self.backbone((images - self.mean) / 60)
        size = features["res2"].shape[-2:]
        pyramid = [
            F.interpolate(lateral(features[name]), size, mode="bilinear")
            for name, lateral in self.laterals.items()
        ]
        logits = self.classifier(F.relu(sum(pyramid)))  # (B, C, h, w)
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear")  # (B, C, H, W)
        if self.training:
            labels = torch.stack([sample["sem_seg"] for sample in batched_inputs]).to(logits.device)
            return {"loss_pixels": F.cross_entropy(logits, labels)}
        return [{"sem_seg": scores} for scores in logits]


# ---------------------------------------------------------------- evaluation


class PixelEvaluator(DatasetEvaluator):
    """mIoU and pixel accuracy from one confusion matrix, summed over all processes."""

    def reset(self):
        self.matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(0).cpu().numpy()
            pairs = sample["sem_seg"].numpy() * len(CLASSES) + predicted
            self.matrix += np.bincount(pairs.ravel(), minlength=self.matrix.size).reshape(
                self.matrix.shape
            )

    def evaluate(self):
        matrices = comm.gather(self.matrix)
        if not comm.is_main_process():
            return None
        matrix = sum(matrices)
        hits = matrix.diagonal()
        iou = hits / np.maximum(matrix.sum(0) + matrix.sum(1) - hits, 1)
        return {"sem_seg": {"mIoU": 100 * iou.mean(), "pACC": 100 * hits.sum() / matrix.sum()}}


@register_evaluator("toy_pixels")
def build_pixel_evaluator(cfg, dataset_name, output_folder):
    return PixelEvaluator()


# ---------------------------------------------------------------- wiring


class ToyTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg, mapper=map_scene)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_detection_test_loader(cfg, dataset_name, mapper=map_scene)


@torch.no_grad()
def draw_sheet(model, file: Path, count: int = 8) -> None:
    """Write a picture: a column per scene, with image, ground truth and prediction."""
    from PIL import Image

    samples = [map_scene(record) for record in scenes(100_000, count)]
    palette = np.array(COLORS, np.uint8)
    columns = [
        np.concatenate(
            [
                sample["image"].permute(1, 2, 0).numpy(),
                palette[sample["sem_seg"].numpy()],
                palette[output["sem_seg"].argmax(0).cpu().numpy()],
            ]
        )
        for sample, output in zip(samples, model(samples), strict=True)
    ]
    sheet = Image.fromarray(np.concatenate(columns, axis=1))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(file)
    logger.info("image, ground truth and prediction of %d scenes: %s", count, file)


def main(args):
    args.config_file = args.config_file or "toy/semantic/r18"
    cfg = get_config(args.config_file, args.opts)
    cfg.freeze()
    setup(cfg, args)
    if args.eval_only:
        model = ToyTrainer.build_model(cfg)
        Checkpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        results = ToyTrainer.test(cfg, model)
    else:
        trainer = ToyTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results, model = trainer.train(), trainer.model
    if comm.is_main_process():
        draw_sheet(model.eval(), Path(cfg.OUTPUT_DIR) / "sheet.png")
    return results


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
