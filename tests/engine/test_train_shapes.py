"""`make train` in small: the built-in data set through loader, model, evaluators and pictures."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from PIL import Image

from rankseg_d2 import engine_name
from rankseg_d2._solver import WarmupPolyLR
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import (
    Trainer,
    build_lr_scheduler,
    build_optimizer,
    build_test_loader,
    build_train_loader,
)
from rankseg_d2.modeling.results.reading import label_map

CONFIGS = ["r10t", "r10t_rankseg", "r10t_rankseg_gt", "lite0_rankseg"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """number of categories -> a small data set of so many."""
    before = set(DatasetCatalog.list())

    def make(num_categories, num_train=24):
        root = tmp_path_factory.mktemp("data")
        register_shapes(num_categories, root=root, num_images={"train": num_train, "val": 6})
        names = [f"('shapes{num_categories}_panoptic_{split}',)" for split in ("train", "val")]
        ranking = ["MODEL.RANKSEG.TOPK", 10, "MODEL.RANKSEG.TOPK_SCHEDULE", []]
        return ["DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1], *ranking]

    yield make
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def train(config, output_dir, *opts):
    """The trainer after the training, and the rows of numbers; the last one has the results."""
    small = ["OUTPUT_DIR", str(output_dir), "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0]
    cfg = get_config(f"shapes/panoptic/{config}", [*small, *opts])
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    lines = (output_dir / "metrics.json").read_text().splitlines()
    return trainer, [json.loads(line) for line in lines]


def check_results(trainer, results):
    """The results are those of the model's own predictions, counted here pixel by pixel."""
    model, (name,) = trainer.model.eval(), trainer.cfg.DATASETS.TEST
    num_classes = trainer.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    both, true, predicted = (np.zeros(num_classes) for _ in range(3))
    recalls = []
    for sample in (sample for batch in build_test_loader(trainer.cfg, name) for sample in batch):
        with torch.no_grad():
            result = model([sample])[0]
        labels = label_map(result)
        ids = np.array(Image.open(sample["sem_seg_file_name"])).astype(int)
        for i in range(num_classes):
            valid = ids < num_classes
            both[i] += ((ids == i) & (labels == i)).sum()
            true[i] += (ids == i).sum()
            predicted[i] += ((labels == i) & valid).sum()
        if "ranking" in result:
            present = set(ids[ids < num_classes].tolist())
            recalls.append(len(present & set(result["ranking"]["classes"].tolist())) / len(present))
    union = true + predicted - both
    expected = 100 * (both[true > 0] / union[true > 0]).mean()
    assert results["sem_seg/mIoU"] == pytest.approx(expected)
    assert 0 <= results["panoptic_seg/PQ"] <= 100
    assert ("multilabel/mAP" in results) is bool(model.ranks and not model.ranker.oracle)
    if "multilabel/mAP" in results:
        assert results["multilabel/k"] == 10
        assert results["multilabel/recall@k"] == pytest.approx(100 * np.mean(recalls))


@pytest.mark.parametrize("config", CONFIGS)
def test_each_config_trains_evaluates_and_draws(config, shapes, tmp_path):
    trainer, rows = train(config, tmp_path, *shapes(20), "SOLVER.MAX_ITER", 2)
    assert math.isfinite(rows[0]["total_loss"])
    check_results(trainer, rows[-1])
    assert (tmp_path / "inference" / "shapes20_panoptic_val" / "sheet.png").is_file()
    check_folder(tmp_path, trainer, rows[-1])


def check_folder(folder, trainer, results):
    """What docs/training.md names is there, with the numbers of the evaluation."""
    expected = {"classes.json", "metrics.json", "metrics.csv", "curves.png"}
    expected |= {"per_class.csv", "confusion.png", "val_shapes20_panoptic_val.jpg"}
    expected |= {"train_batch_0.jpg", "train_batch_1.jpg", "last_checkpoint", "model_final.pth"}
    names = {path.name for path in folder.iterdir()}
    assert expected <= names and "train_batch_2.jpg" not in names
    classes = json.loads((folder / "classes.json").read_text())
    assert [entry["number"] for entry in classes] == list(range(20))
    metadata = MetadataCatalog.get(trainer.cfg.DATASETS.TRAIN[0])
    assert [entry["name"] for entry in classes] == metadata.stuff_classes
    assert [entry["color"] for entry in classes] == [list(x) for x in metadata.stuff_colors]
    with open(folder / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == metadata.stuff_classes
    for row in rows:
        text, value = row["sem_seg/IoU"], results[f"sem_seg/IoU-{row['class']}"]
        assert math.isnan(value) if text == "" else float(text) == value


def test_labels_of_16_bits_go_all_the_way(shapes, tmp_path):
    trainer, rows = train("r10t_rankseg", tmp_path, *shapes(300), "SOLVER.MAX_ITER", 1)
    check_results(trainer, rows[-1])


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
    """Two images, over and over: the results on them come near to perfect."""
    opts = shapes(20, num_train=2)
    names = ["DATASETS.TEST", opts[1], "INPUT.CROP.ENABLED", "False"]
    _, rows = train("r10t_rankseg", tmp_path, *opts, *names, "SOLVER.MAX_ITER", 60)
    assert rows[-1]["sem_seg/mIoU"] > 60  # 93 with seeds 0 and 1
    assert rows[-1]["panoptic_seg/PQ"] > 40  # 82
    assert rows[-1]["multilabel/mAP"] > 95  # 100
