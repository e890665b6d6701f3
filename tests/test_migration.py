"""docs/migration.md: a yaml as people have it from Mask2Former, and the table of configs."""

import json
import re

import pytest
from support.configs import leaves
from support.paths import GOLDEN, ROOT

from rankseg_d2.config import get_config
from rankseg_d2.modeling.meta_arch import MaskFormer, PixelClassifier, model_class

PAGE = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
SIZES = [int(x * 0.1 * 512) for x in range(5, 21)]
TAG = '!!python/object/apply:eval ["[int(x * 0.1 * 512) for x in range(5, 21)]"]'
# Written by hand, with upstream's names of keys and published values; in parts, as upstream's is.
BASE = """
MODEL:
  BACKBONE: {FREEZE_AT: 0, NAME: "build_resnet_backbone"}
  WEIGHTS: "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  RESNETS: {DEPTH: 50, STEM_TYPE: "basic", STRIDE_IN_1X1: False, RES5_MULTI_GRID: [1, 1, 1],
            OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
DATASETS:
  TRAIN: ("ade20k_sem_seg_train",)
  TEST: ("ade20k_sem_seg_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.0001
  MAX_ITER: 160000
  WARMUP_FACTOR: 1.0
  WARMUP_ITERS: 0
  WEIGHT_DECAY: 0.05
  OPTIMIZER: "ADAMW"
  LR_SCHEDULER_NAME: "WarmupPolyLR"
  BACKBONE_MULTIPLIER: 0.1
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: "full_model", CLIP_VALUE: 0.01, NORM_TYPE: 2.0}
  AMP: {ENABLED: True}
INPUT:
  MIN_SIZE_TRAIN: <SIZES>
  MIN_SIZE_TRAIN_SAMPLING: "choice"
  MIN_SIZE_TEST: 512
  MAX_SIZE_TRAIN: 2048
  MAX_SIZE_TEST: 2048
  CROP:
    ENABLED: True
    TYPE: "absolute"
    SIZE: (512, 512)
    SINGLE_CATEGORY_MAX_AREA: 1.0
  COLOR_AUG_SSD: True
  SIZE_DIVISIBILITY: 512
  FORMAT: "RGB"
  DATASET_MAPPER_NAME: "mask_former_semantic"
TEST:
  EVAL_PERIOD: 5000
  AUG: {ENABLED: False, MIN_SIZES: [256, 384, 512, 640, 768, 896], MAX_SIZE: 3584, FLIP: True}
DATALOADER: {FILTER_EMPTY_ANNOTATIONS: True, NUM_WORKERS: 4}
VERSION: 2
"""
MASK2FORMER = """
_BASE_: base.yaml
MODEL:
  META_ARCHITECTURE: "MaskFormer"
  SEM_SEG_HEAD:
    NAME: "MaskFormerHead"
    IGNORE_VALUE: 255
    NUM_CLASSES: 150
    LOSS_WEIGHT: 1.0
    CONVS_DIM: 256
    MASK_DIM: 256
    NORM: "GN"
    PIXEL_DECODER_NAME: "MSDeformAttnPixelDecoder"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES: ["res3", "res4", "res5"]
    COMMON_STRIDE: 4
    TRANSFORMER_ENC_LAYERS: 6
  MASK_FORMER:
    TRANSFORMER_DECODER_NAME: "MultiScaleMaskedTransformerDecoder"
    TRANSFORMER_IN_FEATURE: "multi_scale_pixel_decoder"
    CLASS_WEIGHT: 2.0
    MASK_WEIGHT: 5.0
    DICE_WEIGHT: 5.0
    DROPOUT: 0.0
    DEC_LAYERS: 10
    TEST: {OVERLAP_THRESHOLD: 0.8, OBJECT_MASK_THRESHOLD: 0.8}
"""
PER_PIXEL = """
_BASE_: base.yaml
MODEL:
  META_ARCHITECTURE: "SemanticSegmentor"
  SEM_SEG_HEAD: {NAME: "PerPixelBaselineHead", IN_FEATURES: ["res2", "res3", "res4", "res5"]}
"""


@pytest.fixture
def theirs(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE.replace("<SIZES>", str(SIZES)))
    path = tmp_path / "maskformer2_R50_bs16_160k.yaml"
    path.write_text(MASK2FORMER)
    return path


def differing(one, other):
    """The keys in which two configs differ."""
    found, wanted = (dict(leaves(get_config(name))) for name in (one, other))
    return {name for name in found if found[name] != wanted[name]}


def test_a_yaml_of_mask2former_is_the_shipped_config(theirs):
    assert differing(theirs, "ade20k/semantic/r50") <= {"OUTPUT_DIR"}
    assert model_class(get_config(theirs)) is MaskFormer


def test_its_tag_is_refused_with_the_list_to_write(theirs):
    (theirs.parent / "base.yaml").write_text(BASE.replace("<SIZES>", TAG))
    with pytest.raises(ValueError, match=r"base\.yaml, line \d+: .*refused") as error:
        get_config(theirs)
    assert str(SIZES) in str(error.value)


def test_the_yaml_of_the_page_adds_rankseg(theirs):
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = theirs.with_name("mine.yaml")
    path.write_text(text)
    assert differing(path, "ade20k/semantic/r50_rankseg") <= {"OUTPUT_DIR"}


def test_a_per_pixel_config_is_read_as_pixel_classifier(theirs):
    path = theirs.with_name("per_pixel.yaml")
    path.write_text(PER_PIXEL)
    cfg = get_config(path)
    assert cfg.MODEL.META_ARCHITECTURE == "PixelClassifier"
    assert model_class(cfg) is PixelClassifier


def test_each_row_of_configs_names_two_that_are_the_same():
    rows = json.loads((GOLDEN / "upstream_configs.json").read_text())["rows"]
    named = re.findall(r"config `(\S+\.yaml)` \| `(\S+)` \|", PAGE)
    assert len(named) == 7
    for there, here in named:
        assert rows[here].partition("/configs/")[2] == there


@pytest.mark.parametrize("name", ["PanopticFPN", "GeneralizedRCNN"])
def test_a_config_of_a_detector_is_read_and_only_the_model_is_missing(name, tmp_path):
    path = tmp_path / "detector.yaml"
    path.write_text(f"MODEL: {{META_ARCHITECTURE: {name}}}\n")
    cfg = get_config(path)
    assert name == cfg.MODEL.META_ARCHITECTURE
    assert model_class(cfg) is None
