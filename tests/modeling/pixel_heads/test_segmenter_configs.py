"""Segmenter's configs are the published rows. tests/test_shipped_configs.py builds each of them."""

import pytest

from rankseg_d2.config import get_config
from rankseg_d2.engine.checks import build_on_meta

ADE, COCO, LVIS = (f"{name}/semantic/segmenter_" for name in ("ade20k", "coco_stuff", "coco_lvis"))
PASCAL, FULL = (f"{name}/semantic/segmenter_" for name in ("pascal_context", "ade20k_full"))
# Millions of parameters: of the paper's Table 1, and of models that were counted in the references
PARAMETERS = {
    f"{ADE}vit_b": 102.498,
    f"{COCO}vit_b": 102.514,
    f"{LVIS}vit_b": 103.371,
    f"{ADE}encnet_vit_b": 109.154,
    f"{COCO}encnet_vit_b": 109.186,
    f"{ADE}essnet_vit_b": 101.416,
    f"{COCO}essnet_vit_b": 101.432,
    f"{ADE}vit_b_rankseg": 109.702,
    f"{COCO}vit_b_rankseg": 109.734,
    f"{LVIS}vit_b_rankseg": 111.445,
    f"{COCO}decoder_vit_b_rankseg": 114.27,
    f"{COCO}pooling_vit_b_rankseg": 103.24,
    f"{ADE}vit_ti_rankseg": 7.19,
    f"{ADE}vit_s_rankseg": 27.87,
}


@pytest.mark.parametrize("config", PARAMETERS)
def test_it_has_as_many_parameters_as_published(config):
    model = build_on_meta(get_config(config, ["MODEL.DEVICE=cpu"]))
    count = sum(parameter.numel() for parameter in model.parameters())
    digits = len(str(PARAMETERS[config]).partition(".")[2])
    assert round(count / 1e6, digits) == PARAMETERS[config]


IMAGENET, HALF = 123.675, 127.5
# config: classes, κ, weight and kind of the multi-label loss, crop, thousands of iterations, mean
ROWS = {
    f"{COCO}vit_b": (171, 50, 10, "bce", 512, 40, IMAGENET),
    f"{COCO}vit_b_80k": (171, 50, 5, "bce", 512, 80, IMAGENET),
    f"{COCO}vit_l": (171, 50, 10, "asymmetric", 640, 40, IMAGENET),
    f"{PASCAL}vit_b": (60, 25, 5, "asymmetric", 480, 80, HALF),
    f"{ADE}vit_b": (150, 50, 10, "asymmetric", 512, 160, HALF),
    f"{ADE}vit_l": (150, 50, 10, "asymmetric", 640, 160, HALF),
    f"{COCO}decoder_vit_b": (171, 50, 10, "shifted_bce", 512, 40, IMAGENET),
    f"{COCO}pooling_vit_b": (171, 50, 10, "shifted_bce", 512, 40, IMAGENET),
    f"{COCO}oce_vit_b": (171, 50, 10, "bce", 512, 40, IMAGENET),
    f"{ADE}oce_vit_b": (150, 50, 10, "asymmetric", 512, 160, HALF),
    f"{FULL}vit_b": (847, 50, 10, "asymmetric", 512, 160, IMAGENET),
    f"{LVIS}vit_b": (1284, 100, 10, "asymmetric", 512, 320, IMAGENET),
    f"{LVIS}vit_l": (1284, 100, 10, "asymmetric", 640, 320, IMAGENET),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_trained_as_published(row):
    baseline, cfg, oracle = (get_config(f"{row}{end}") for end in ("", "_rankseg", "_rankseg_gt"))
    classes, topk, weight, loss, crop, iterations, mean = ROWS[row]
    ranking = cfg.MODEL.RANKSEG
    assert (classes, topk) == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, ranking.TOPK)
    assert (weight, loss) == (ranking.LOSS_WEIGHT, ranking.LOSS)
    assert list(cfg.INPUT.CROP.SIZE) == [crop, crop] and crop == cfg.MODEL.VIT.IMAGE_SIZE
    window = cfg.TEST.SLIDING_WINDOW
    assert window.ENABLED and list(window.SIZE) == list(window.STRIDE) == [crop, crop]
    assert cfg.SOLVER.MAX_ITER == 1000 * iterations == 10 * cfg.TEST.EVAL_PERIOD
    assert cfg.MODEL.PIXEL_MEAN[0] == mean
    solver = (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH)
    assert solver == ("SGD", 1e-3, 8) and cfg.SOLVER.MOMENTUM == 0.9
    assert not baseline.MODEL.RANKSEG.FLAG and baseline.MODEL.WEIGHTS.endswith("res_384.npz")
    assert oracle.MODEL.RANKSEG.USE_GT and oracle.MODEL.RANKSEG.TOPK == 0
    assert build_on_meta(oracle).ranker.topk == classes
