"""Own data from yaml to results, and what a config can ask of training and evaluation."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from support import own_data
from support.end_to_end import Perfect, small_config, train

from rankseg_d2 import engine
from rankseg_d2.engine import Checkpointer, Trainer, build_test_loader

SEMANTIC, PANOPTIC = "ade20k/semantic/r50_rankseg", "coco/panoptic/r50_rankseg"
VOID = 65535
INSTANCES = {f"MODEL__MASK_FORMER__TEST__{task}_ON": False for task in ("SEMANTIC", "PANOPTIC")}
INSTANCES |= {"MODEL__MASK_FORMER__TEST__INSTANCE_ON": True}

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def config(folder, base=SEMANTIC, **keys):
    """That of a file which says what data there are, my.yaml, and which model to take."""
    path = folder / "train.yaml"
    path.write_text(f"_BASE_: {base}\nDATASETS: {{FILES: [my.yaml]}}\n")
    return small_config(path, folder / "output", **({"MODEL__RANKSEG__TOPK": 3} | keys))


def draw_street(folder, classes=300, offset=1000):
    """Label images of 16 bits with an offset; a corner is 65535, another one 7: both are void."""
    names = [f"class {i}" for i in range(classes)]
    own_data.semantic(folder, classes=names, label_offset=offset, ignore=[VOID, 7])
    for i, name in enumerate(own_data.NAMES):
        values = own_data.label_map(i, classes).astype(np.uint16) + offset
        values[:5, :9], values[-4:, -8:] = VOID, 7
        own_data.write_label(folder / "labels" / f"{name}.png", values)


def check_perfect(cfg, *tasks):
    results = Trainer.test(cfg, Perfect(cfg))
    main = {"sem_seg": "mIoU", "panoptic_seg": "PQ", "segm": "AP", "multilabel": "mAP"}
    expected = {task: 100 for task in tasks}
    assert {task: results[task][main[task]] for task in results} == pytest.approx(expected)


def test_labels_of_16_bits_with_offset_and_void(tmp_path):
    draw_street(tmp_path)
    cfg = config(tmp_path)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 300
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == VOID
    results = train(cfg)
    assert math.isfinite(results["sem_seg/mIoU"] + results["multilabel/mAP"])
    check_perfect(cfg, "sem_seg", "multilabel")


def test_a_json_registered_in_python_trains_and_its_number_of_classes_is_checked(tmp_path):
    own_data.instances(tmp_path)  # two classes, which detectron2 reads only with the records
    register_coco_instances("cars", {}, str(tmp_path / "instances.json"), str(tmp_path / "images"))
    data = {"DATASETS__TRAIN": ["cars"], "DATASETS__TEST": ["cars"]}
    keys = data | INSTANCES | {"INPUT__DATASET_MAPPER_NAME": "mask_former_instance"}
    with pytest.raises(ValueError, match="NUM_CLASSES is 133, .* cars .* has 2 thing_classes"):
        Trainer(small_config(PANOPTIC, tmp_path / "output", **keys))
    keys |= {"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 2, "MODEL__RANKSEG__TOPK": 2}
    cfg = small_config(PANOPTIC, tmp_path / "output", **keys)
    assert math.isfinite(train(cfg)["segm/AP"])
    check_perfect(cfg, "segm", "multilabel")


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_jsons_in_parts(tmp_path, kind):
    getattr(own_data, kind)(tmp_path)
    if kind == "panoptic":
        cfg = config(tmp_path, PANOPTIC, MODEL__MASK_FORMER__TEST__INSTANCE_ON=False)
        tasks = ["sem_seg", "panoptic_seg"]
    else:
        only = {f"MODEL__MASK_FORMER__TEST__{task}_ON": False for task in ("SEMANTIC", "PANOPTIC")}
        only["INPUT__DATASET_MAPPER_NAME"] = "coco_instance_lsj"
        cfg = config(tmp_path, PANOPTIC, MODEL__RANKSEG__TOPK=2, **only)
        tasks = ["segm"]
    train(cfg)
    check_perfect(cfg, *tasks, "multilabel")


@pytest.mark.parametrize("broken", ["image", "label"])
def test_a_damaged_file_ends_the_training_or_is_left_out(tmp_path, caplog, broken):
    own_data.semantic(tmp_path)
    cfg = config(tmp_path, SOLVER__MAX_ITER=4)  # of two images each: all eight
    (first, *_) = DatasetCatalog.get("street_train")
    path = Path(first["file_name" if broken == "image" else "sem_seg_file_name"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"the (label )?image {path} cannot be read"):
        train(cfg)
    with caplog.at_level(logging.WARNING):
        train(config(tmp_path, SOLVER__MAX_ITER=4, INPUT__CORRUPT="skip"))
    skipped = [text for text in caplog.messages if "because INPUT.CORRUPT is skip" in text]
    assert len(skipped) == 1 and str(path) in skipped[0]


def test_the_oracle_ranks_by_what_a_label_table_says(tmp_path):
    draw_street(tmp_path, classes=20)
    cfg = config(tmp_path, "ade20k/semantic/r50_rankseg_gt", MODEL__RANKSEG__TOPK=6)
    train(cfg)
    model = Trainer.build_model(cfg).eval()
    seen = Perfect(cfg)
    for batch in build_test_loader(cfg, "street_val"):
        (result,) = model(batch)
        labels = set(np.unique(seen.labels(seen.records[batch[0]["file_name"]])).tolist()) - {255}
        assert set(result["ranking"]["classes"].tolist()) == labels
        assert set(result["sem_seg_labels"].unique().tolist()) <= labels
    results = Trainer.test(cfg, model)
    assert results.keys() == {"sem_seg"} and math.isfinite(results["sem_seg"]["mIoU"])


@pytest.fixture
def trained(tmp_path):
    """A folder with a street, a config of it and a checkpoint."""
    own_data.semantic(tmp_path)
    cfg = config(tmp_path)
    Checkpointer(Trainer.build_model(cfg), str(tmp_path)).save("weights")
    return tmp_path


def evaluate(folder, **keys):
    """What `train_net.py --eval-only` with these keys gives."""
    cfg = config(folder, MODEL__WEIGHTS=str(folder / "weights.pth"), **keys)
    return engine.evaluate(cfg, resume=False)


def test_passes_of_an_evaluation_only(trained):
    plain = evaluate(trained)
    window = {"TEST__SLIDING_WINDOW__ENABLED": True, "TEST__SLIDING_WINDOW__STRIDE": [32, 32]}
    one_view = {"TEST__AUG__ENABLED": True, "TEST__AUG__MIN_SIZES": [64], "TEST__AUG__FLIP": False}
    views = one_view | {"TEST__AUG__MIN_SIZES": [48, 64], "TEST__AUG__FLIP": True}
    whole = evaluate(trained, TEST__SLIDING_WINDOW__SIZE=[200, 200], **window)
    same = pytest.approx(plain["sem_seg"], abs=1e-3, nan_ok=True)
    assert whole["sem_seg"] == same
    assert evaluate(trained, **one_view)["sem_seg"] == same
    for keys in (window | {"TEST__SLIDING_WINDOW__SIZE": [48, 48]}, views):
        results = evaluate(trained, **keys)
        assert results.keys() == {"sem_seg", "multilabel"}
        assert math.isfinite(results["sem_seg"]["mIoU"])
        assert math.isfinite(results["multilabel"]["mAP"])
