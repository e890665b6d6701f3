"""The small configs of entities train, are evaluated, and predict."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Trainer
from rankseg_d2.predict import Predictor

NAMES = ["shapes12_entity_train", "shapes12_entity_val"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    register_shapes(12, root=root, num_images={"train": 6, "val": 3})
    yield ["DATASETS.TRAIN", (NAMES[0],), "DATASETS.TEST", (NAMES[1],)]
    for name in [name for name in DatasetCatalog.list() if name.startswith("shapes12_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("config", ["r10t", "condinst_r10t"])
def test_a_config_trains_is_evaluated_and_predicts(config, data, tmp_path):
    opts = ["OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2]
    opts += ["MODEL.CONDINST.SCORE_THRESHOLD", 0.0, "TEST.DETECTIONS_PER_IMAGE", 20]
    cfg = get_config(f"shapes/entity/{config}", [*opts, *data])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 1
    torch.manual_seed(0)
    Trainer(cfg).train()
    rows = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert math.isfinite(rows[0]["total_loss"])
    assert 0 <= rows[-1]["entity/AP"] <= 100
    assert not any(key.startswith(("sem_seg", "segm")) for key in rows[-1])
    folder = tmp_path / "inference" / NAMES[1]
    assert (folder / "sheet.png").is_file() and (folder / "entity.json").is_file()
    predictor = Predictor.from_checkpoint(tmp_path / "model_final.pth", device="cpu")
    assert predictor.classes.names == ("entity",) and predictor.classes.things == {0}
    result = predictor(np.full((60, 80, 3), 128, np.uint8))
    assert result.instances.masks.sum(0).max(initial=0) <= 1
    assert result.plot().shape[2] == 3 and result.labels().shape == (60, 80)
