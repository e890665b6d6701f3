"""One pass for many κ and thresholds equals a separate evaluation for each."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from support.end_to_end import small_config
from support.golden import fill
from support.small import MASK2FORMER, MASKFORMER, RANKSEG, evaluate, image_sample, make_config

from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Checkpointer, Trainer
from rankseg_d2.modeling.passes.several import run_pass
from rankseg_d2.ranking import Ranker
from rankseg_d2.report import sweep as module
from rankseg_d2.report.kappa import load_model
from rankseg_d2.report.sweep import Choice, kept_shares, sweep

CLASSES, TOPK = 20, 12
CHOICES = [Choice(1), Choice(5), Choice(TOPK), Choice(TOPK, 0.45), Choice(TOPK, 0.999)]
PIXELS = MASKFORMER | {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.5,
}
ALL = {f"MODEL.MASK_FORMER.TEST.{task}_ON": True for task in ("SEMANTIC", "PANOPTIC", "INSTANCE")}


def make(*options):
    torch.manual_seed(0)
    model = build_model(make_config(*options))
    fill(model)
    return model.eval()


@pytest.mark.parametrize("kind", [MASK2FORMER | ALL, MASKFORMER | ALL, PIXELS])
@pytest.mark.parametrize("choice", [Choice(1), Choice(3), Choice(4), Choice(4, 0.3)])
def test_results_equal_those_of_a_model_that_loads_the_checkpoint_with_this_kappa(
    kind, choice, tmp_path
):
    kind = kind | {"MODEL.RANKSEG.TOPK": 4, "DATASETS.TEST": ("shapes20_panoptic_val",)}
    register_shapes(CLASSES, root=str(tmp_path))
    model = make(RANKSEG, kind)
    Checkpointer(model, str(tmp_path)).save("model")
    keys = {"MODEL.RANKSEG.TOPK": choice.topk, "MODEL.RANKSEG.THRESHOLD": choice.threshold or 0.0}
    separate = make(RANKSEG, kind, keys)
    Checkpointer(separate).load(str(tmp_path / "model.pth"))
    sample = image_sample()
    expected = evaluate(separate, [sample])[0]
    with torch.no_grad():
        one = run_pass(model, sample)
        result = one.result(choice.ranker(model.ranker).rank(one.scores))
    assert result.keys() == expected.keys()
    assert torch.equal(result["sem_seg_labels"], expected["sem_seg_labels"])
    assert torch.equal(result["sem_seg_scores"], expected["sem_seg_scores"])
    assert torch.equal(result["ranking"]["classes"], expected["ranking"]["classes"])
    if "instances" in result:
        assert torch.equal(result["instances"].scores, expected["instances"].scores)
        assert torch.equal(result["panoptic_seg"][0], expected["panoptic_seg"][0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The config of a small model with a checkpoint, on six images that are drawn."""
    folder = tmp_path_factory.mktemp("run")
    register_shapes(CLASSES, root=str(folder), num_images={"train": 1, "val": 6})
    names = {"DATASETS__TRAIN": ("shapes20_panoptic_train",)}
    names["DATASETS__TEST"] = ("shapes20_panoptic_val",)
    cfg = small_config(
        "shapes/panoptic/r10t_rankseg",
        folder / "out",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=CLASSES,
        MODEL__MASK_FORMER__TEST__INSTANCE_ON=True,
        MODEL__MASK_FORMER__TEST__OVERLAP_THRESHOLD=0.0,
        MODEL__WEIGHTS=str(folder / "out/model.pth"),
        **names,
    )
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    fill(model)
    Checkpointer(model, cfg.OUTPUT_DIR).save("model")
    return cfg


def separate(cfg, choice):
    """The results of an evaluation with these keys, by a model of its own."""
    cfg = cfg.clone()
    cfg.MODEL.RANKSEG.TOPK = choice.topk
    cfg.MODEL.RANKSEG.THRESHOLD = choice.threshold or 0.0
    return Trainer.test(cfg, load_model(cfg))


@pytest.fixture(scope="module")
def swept(run):
    return sweep(run, load_model(run), CHOICES)


@pytest.mark.parametrize("choice", CHOICES)
def test_metrics_equal_a_separate_evaluation(run, swept, choice):
    expected, found = separate(run, choice), dict(swept[1][choice])
    assert found.pop("time")["ms"] > 0
    found.pop("pixels")
    assert found.keys() == expected.keys() == {"sem_seg", "panoptic_seg", "segm", "multilabel"}
    for task, metrics in expected.items():
        assert found[task].keys() == metrics.keys()
        for name, value in metrics.items():
            assert found[task][name] == pytest.approx(value, abs=1e-9, nan_ok=True), (task, name)
    assert expected["sem_seg"]["mIoU"] > 0


def test_images_have_scores_categories_and_pixels_of_the_ground_truth(run, swept):
    images, _ = swept
    assert images.scores.shape == images.present.shape == images.pixels.shape == (6, CLASSES)
    assert (images.dataset, images.topk) == ("shapes20_panoptic_val", TOPK)
    for record, name, pixels in zip(
        DatasetCatalog.get(images.dataset), images.images, images.pixels, strict=True
    ):
        assert name == record["file_name"]
        segments = torch.zeros(CLASSES, dtype=torch.int64)
        for segment in record["segments_info"]:
            segments[segment["category_id"]] += segment["area"]
        assert torch.equal(pixels, segments)
    assert torch.equal(images.present, images.pixels > 0)


def test_recall_of_pixels_by_hand(swept):
    images, results = swept
    for choice in (Choice(1), Choice(5)):
        kept = images.scores.topk(choice.topk).indices
        shares = [
            (row[best].sum() / row.sum()).item()
            for row, best in zip(images.pixels, kept, strict=True)
        ]
        assert results[choice]["pixels"]["recall"] == pytest.approx(100 * np.mean(shares))
    model_recall = results[Choice(5)]["multilabel"]["recall@k"]
    few = kept_shares(images, Ranker(1))[0]
    assert few["k"] == 1 and few["recall@k"] <= model_recall


def test_precision_of_pixels_is_the_share_of_predicted_pixels_whose_category_is_present(
    run, monkeypatch
):
    seen = []
    count = module.predicted_labels

    def spy(result, classes):
        labels, ids = count(result, classes)
        seen.append(labels)
        return labels, ids

    monkeypatch.setattr(module, "predicted_labels", spy)
    cfg = run.clone()
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = False
    images, results = sweep(cfg, load_model(cfg), [Choice(5)])
    shares = [
        np.isin(labels, present.nonzero()).mean()
        for labels, present in zip(seen, images.present, strict=True)
    ]
    assert 0 < np.mean(shares) < 1
    assert results[Choice(5)]["pixels"]["precision"] == pytest.approx(100 * np.mean(shares))


def test_the_oracle_keeps_what_is_present(run, swept):
    cfg, oracle = run.clone(), Choice(TOPK, oracle=True)
    images, results = sweep(cfg, load_model(cfg), [Choice(TOPK), oracle])
    assert results[oracle]["multilabel"]["recall@k"] == pytest.approx(
        100 * (images.present.sum(1).clamp(max=TOPK) / images.present.sum(1)).mean()
    )
    assert results[oracle]["multilabel"]["precision@k"] == 100
    assert results[oracle]["pixels"]["precision"] == pytest.approx(100)
    other = swept[1][Choice(TOPK)]["sem_seg"]["mIoU"]
    assert results[oracle]["sem_seg"]["mIoU"] != results[Choice(TOPK)]["sem_seg"]["mIoU"] == other


def test_the_network_runs_once_for_each_image(run, monkeypatch):
    model, calls = load_model(run), []
    network = model.network
    monkeypatch.setattr(model, "network", lambda *args: calls.append(1) or network(*args))
    sweep(run, model, CHOICES)
    assert len(calls) == 6


def test_a_data_set_without_labels_is_told(run, monkeypatch):
    monkeypatch.setattr(module, "build_evaluator", lambda *args: Checkpointer)
    with pytest.raises(ValueError, match="'shapes20_panoptic_val' has no labels that a ranking"):
        sweep(run, load_model(run), [Choice(1)])
