"""`make train` in small: the built-in data set through loader, model, evaluators and pictures."""

import json
import math

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer

from rankseg_d2 import engine_name
from rankseg_d2._solver import WarmupPolyLR
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Trainer, build_lr_scheduler, build_optimizer, build_train_loader

CONFIGS = ["r10t", "r10t_rankseg", "r10t_rankseg_gt"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """number of categories -> a small data set of so many."""
    before, root = set(DatasetCatalog.list()), tmp_path_factory.mktemp("data")

    def make(num_categories):
        register_shapes(num_categories, root=root, num_images={"train": 24, "val": 6})
        names = [f"('shapes{num_categories}_panoptic_{split}',)" for split in ("train", "val")]
        return ["DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1], "MODEL.RANKSEG.TOPK", 10]

    yield make
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def train(config, output_dir, *opts):
    """Rows of numbers that a training writes; the last one has the results."""
    small = ["OUTPUT_DIR", str(output_dir), "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0]
    cfg = get_config(f"shapes/panoptic/{config}", [*small, *opts])
    torch.manual_seed(0)
    Trainer(cfg).train()
    return [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]


def check_results(results, ranks):
    assert 0 <= results["sem_seg/mIoU"] <= 100
    assert 0 <= results["panoptic_seg/PQ"] <= 100
    assert ("multilabel/mAP" in results) is ranks
    if ranks:
        assert results["multilabel/k"] == 10
        assert 0 < results["multilabel/recall@k"] <= 100
        assert 0 < results["multilabel/mAP"] <= 100


@pytest.mark.parametrize("config", CONFIGS)
def test_each_config_trains_evaluates_and_draws(config, shapes, tmp_path):
    rows = train(config, tmp_path, *shapes(20), "SOLVER.MAX_ITER", 2)
    assert math.isfinite(rows[0]["total_loss"])
    check_results(rows[-1], ranks=config == "r10t_rankseg")
    assert (tmp_path / "inference" / "shapes20_panoptic_val" / "sheet.png").is_file()


def test_labels_of_16_bits_go_all_the_way(shapes, tmp_path):
    rows = train("r10t_rankseg", tmp_path, *shapes(300), "SOLVER.MAX_ITER", 1)
    check_results(rows[-1], ranks=True)


class PlainTrainer(DefaultTrainer):
    """detectron2's trainer with our loader, as docs/engine.md shows it."""

    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg)


class RealTrainer(PlainTrainer):
    """The real detectron2 has neither SOLVER.CLIP_GRADIENTS's full_model nor WarmupPolyLR."""

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return build_lr_scheduler(cfg, optimizer)


def test_detectron2s_default_trainer_trains_a_shipped_config(shapes, tmp_path):
    opts = [*shapes(20), "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2]
    cfg = get_config("shapes/panoptic/r10t_rankseg", ["OUTPUT_DIR", str(tmp_path), *opts])
    trainer = (PlainTrainer if engine_name() == "embedded" else RealTrainer)(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    row = json.loads((tmp_path / "metrics.json").read_text())
    assert row["iteration"] == 1 and math.isfinite(row["total_loss"])
    assert isinstance(trainer.scheduler, WarmupPolyLR)
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1.0, rel=1e-3)  # clipped


@pytest.mark.slow
def test_the_model_learns_what_it_sees(shapes, tmp_path):
    opts = [*shapes(20), "SOLVER.MAX_ITER", 40, "DATASETS.TEST", "()"]
    losses = [row["total_loss"] for row in train("r10t_rankseg", tmp_path, *opts)]
    assert losses[-1] < 0.92 * losses[0]
