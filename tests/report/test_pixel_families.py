"""Shipped configs of every family, from training to the metrics at each κ and the report."""


import json

import pytest
from detectron2.data import DatasetCatalog
from support.end_to_end import train

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Trainer
from rankseg_d2.report.kappa import load_model
from rankseg_d2.report.sweep import Choice, sweep

CLASSES, TOPK = 20, 6
KEYS = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
    "DATASETS.TRAIN": ("shapes20_sem_seg_train",),
    "DATASETS.TEST": ("shapes20_sem_seg_val",),
    "INPUT.MIN_SIZE_TRAIN": [64, 80],
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.CROP.SIZE": [64, 64],
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.SLIDING_WINDOW.SIZE": [64, 64],
    "TEST.SLIDING_WINDOW.STRIDE": [48, 48],
}
RANKED = {
    "segmenter_vit_rankseg": {"MODEL.VIT.DEPTH": 2, "TEST.SLIDING_WINDOW.ENABLED": True},
    "deeplab_r50c_rankseg": {"MODEL.RESNETS.WIDTH_PER_GROUP": 4},
    "upernet_swin_rankseg": {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": [48, 64]},
    "segformer_b0_rankseg": {},
}
ORACLES = ("segmenter_vit_rankseg_gt", "segformer_b0_rankseg_gt")
CHOICES = [Choice(1), Choice(TOPK), Choice(TOPK, 0.45)]


def config(name, folder, more, *opts):
    register_shapes(CLASSES, root=str(folder), num_images={"train": 2, "val": 2})
    keys = KEYS | {"OUTPUT_DIR": str(folder / "out")} | more
    return get_config(
        f"shapes/semantic/{name}", [*(word for pair in keys.items() for word in pair), *opts]
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if "vit" in x else pytest.mark.slow) for x in RANKED],
)
def test_metrics_at_each_kappa_are_those_of_an_evaluation_and_get_a_report(name, tmp_path):
    cfg = config(name, tmp_path, {"MODEL.RANKSEG.TOPK": TOPK} | RANKED[name])
    last = train(cfg)
    assert last["sem_seg/mIoU"] >= 0
    cfg.MODEL.WEIGHTS = str(tmp_path / "out/model_final.pth")
    _, swept = sweep(cfg, load_model(cfg), CHOICES)
    for choice in CHOICES:
        one = cfg.clone()
        one.MODEL.RANKSEG.TOPK = choice.topk
        one.MODEL.RANKSEG.THRESHOLD = choice.threshold or 0.0
        expected = Trainer.test(one, load_model(one))
        for task, metrics in expected.items():
            assert swept[choice][task] == pytest.approx(metrics, abs=1e-9, nan_ok=True), task
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/report.html").stat().st_size > 10_000
    split = json.loads(next(tmp_path.glob("out/inference/*/sem_seg_errors.json")).read_text())
    assert sum(split["metrics"].values()) == pytest.approx(100)
    assert split["metrics"]["ranking"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ORACLES)
def test_the_oracle_trains_and_is_evaluated(name, tmp_path):
    last = train(config(name, tmp_path, {"MODEL.RANKSEG.TOPK": TOPK}))
    assert last["sem_seg/mIoU"] >= 0
    assert len(DatasetCatalog.get("shapes20_sem_seg_val")) == 2
