"""`rankseg-d2 attach-ranker`: a head for a trained model, whose own weights stay as they are."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import fill
from support.small import make_config  # noqa: F401  (registers the models)

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Checkpointer, Trainer, build_train_loader
from rankseg_d2.engine.features import cached_features, scored_by
from rankseg_d2.report.kappa import load_model

CLASSES, IMAGES, KAPPA = 20, 21, 5
CONFIG = "shapes/panoptic/r10t"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The keys of a small plain model, its checkpoint, and a folder."""
    folder = tmp_path_factory.mktemp("attach")
    register_shapes(CLASSES, root=str(folder), num_images={"train": IMAGES, "val": 4})
    keys = {
        "DATASETS.TRAIN": "('shapes20_panoptic_train',)",
        "DATASETS.TEST": "('shapes20_panoptic_val',)",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
        "OUTPUT_DIR": folder / "run",
    }
    settings = [f"{key}={value}" for key, value in keys.items()]
    model = Trainer.build_model(get_config(CONFIG, settings))
    fill(model)
    Checkpointer(model, str(folder)).save("model")
    return settings, folder / "model.pth", folder


def attach(plain, out, *more, config=CONFIG):
    settings, weights, _ = plain
    words = [config, "--weights", str(weights), "--out", str(out), *more]
    return cli.main(["attach-ranker", *words, "--set", *settings])


@pytest.fixture(scope="module")
def attached(plain):
    """The folder of a model with a head."""
    out = plain[2] / "ranks"
    assert attach(plain, out, "--kappa", str(KAPPA), "--iterations", "30") == 0
    return out


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_the_plain_weights_are_kept_bit_by_bit_beside_a_head(plain, attached):
    before, after = weights_of(plain[1]), weights_of(attached / "model_final.pth")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"ml_head"}


def test_the_table_has_the_plain_model_and_each_list(plain, attached):
    with open(attached / "attached.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row[""] for row in rows] == ["plain", *(f"κ = 5, {x}" for x in ("head", "masks", "both"))]
    assert [float(row["kept"]) for row in rows] == [CLASSES, *3 * [KAPPA]]
    assert all(float(row["recall@10"]) >= float(row["recall@κ"]) for row in rows[1:])


def test_an_evaluation_of_the_written_config_gives_the_table(attached, tmp_path):
    words = [str(attached / "config.yaml"), "OUTPUT_DIR", str(tmp_path)]
    assert cli.main(["eval", *words]) == 0
    results = json.loads(next(tmp_path.glob("results*.json")).read_text())
    with open(attached / "attached.csv") as file:
        both = list(csv.DictReader(file))[-1]
    text = json.dumps(results)
    for task, metric, column in [("sem_seg", "mIoU", "mIoU"), ("multilabel", "mAP", "mAP")]:
        assert task in text
        assert results_value(results, task, metric) == pytest.approx(float(both[column]), abs=1e-3)


def results_value(results, task, metric):
    return results["results"][task][metric]


def test_with_all_categories_the_results_are_those_of_the_plain_model(plain, attached):
    settings, weights, _ = plain
    cfg = get_config(CONFIG, [*settings, f"MODEL.WEIGHTS={weights}"])
    ranked = get_config(str(attached / "config.yaml"), [f"MODEL.RANKSEG.TOPK={CLASSES}"])
    sample = {"image": torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255}
    with torch.no_grad():
        one, other = (load_model(c)([sample])[0]["sem_seg_labels"] for c in (cfg, ranked))
    assert torch.equal(one, other)
