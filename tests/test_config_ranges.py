"""A value that a key may not have is refused when the config is read, with the key and the file."""

import pytest
from detectron2.config import CfgNode, get_cfg
from support.configs import leaves

from rankseg_d2 import config
from rankseg_d2._yaml import settable_keys
from rankseg_d2.config import add_rankseg_config, get_config
from rankseg_d2.config_ranges import RANGES, choice, list_of, number, or_none, whole
from rankseg_d2.errors import short

UNREAD = {"LOG_OUTPUT", "MODEL.SEM_SEG_HEAD.LOSS_TYPE"} | {
    f"MODEL.SEM_SEG_HEAD.{key}"
    for key in (
        "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS", "PROJECT_FEATURES", "PROJECT_CHANNELS",
        "ASPP_CHANNELS", "ASPP_DROPOUT",
    )
}  # fmt: skip
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def defaults():
    cfg = get_cfg()
    add_rankseg_config(cfg)
    return {key: settable.default for key, settable in settable_keys(cfg).items()}


def test_every_key_of_ours_that_is_read_has_a_range():
    keys = CfgNode()
    config._add_missing(keys, config.KEYS)
    values = {key: value for key, value in leaves(keys) if not isinstance(value, bool)}
    assert values.keys() - RANGES.keys() == UNREAD


@pytest.mark.parametrize("key", RANGES)
def test_every_default_is_in_its_range(key, defaults):
    assert RANGES[key].holds(defaults[key]), defaults[key]


@pytest.mark.parametrize("key", RANGES)
def test_no_range_holds_what_no_key_can_be(key):
    for value in (True, float("nan"), "a\0b", {}, [{}], [float("nan")], [None], -7, object()):
        is_hub = value is True and key == "MODEL.TIMM.PRETRAINED"  # timm's word for it
        assert RANGES[key].holds(value) is is_hub, value


WRONG = {
    "MODEL.MASK_FORMER.NHEADS": [0, -1, 1.5, "'a'", None, True, 2**31, 10**5000],
    "MODEL.MASK_FORMER.HIDDEN_DIM": [0, -256],
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": [0, -5],
    "MODEL.MASK_FORMER.DEC_LAYERS": [0],
    "MODEL.RANKSEG.TOPK": [-1],
    "MODEL.DTYPE": ["int8", "bf16", "''"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": [0, -1, 70_000],
    "DATALOADER.NUM_WORKERS": [-1],
    "SOLVER.MAX_ITER": [0, -10, None],
    "SOLVER.IMS_PER_BATCH": [0, -2],
    "SOLVER.CHECKPOINT_PERIOD": [0, -1],
    "SOLVER.KEEP_CHECKPOINTS": [-1, 1.5, None],
    "SOLVER.ACCUMULATION_STEPS": [0],
    "LOGGERS": ["wandb", "['tensorboard']", "[1]", None],
    "TEST.EVAL_PERIOD": [-1],
    "SEED": [2**70, -2],
    "INPUT.SAMPLING_FRAME_NUM": [0],
    "INPUT.IMAGE_SIZE": [0, -1],
    "MODEL.RESNETS.DEPTH": [0, 51],
    "SOLVER.BASE_LR": [0.0, -0.1, NAN, INF, -INF],
    "SOLVER.WEIGHT_DECAY": [-0.1, NAN, INF],
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": [-1.0, NAN, INF],
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": [0.0, -1.0, NAN],
    "SOLVER.BACKBONE_MULTIPLIER": [-0.1, NAN],
    "SOLVER.MOMENTUM": [1.0, -0.1],
    "SOLVER.MLHEAD_GUARD.FACTOR": [0.0, 1.0],
    "MODEL.MASK_FORMER.DROPOUT": [1.0, -0.1],
    "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO": [1.5, -0.5],
    "MODEL.RANKSEG.LOSS_WEIGHT": [-1, NAN],
    "MODEL.RANKSEG.THRESHOLD": [1.0, -0.5],
    "SOLVER.WEIGHT_DECAY_BIAS": [-0.1, "'a'", True],
    "INPUT.MIN_SIZE_TRAIN": ["()", "(-5,)", "(0,)", "('a',)", "(1.5,)", "(True,)"],
    "INPUT.CROP.SIZE": ["(0, 0)", "(-1, 2)", "(1,)", "(1, 2, 3)", "('a', 'b')", "[nan, 1]"],
    "MODEL.PIXEL_STD": ["['a', 'b', 'c']", "[0, 1, 1]", "[]", "[1, 1, -1]", "[None]"],
    "MODEL.PIXEL_MEAN": ["['a']", "[]"],
    "MODEL.SWIN.DEPTHS": ["[]", "[0, 2]"],
    "TEST.AUG.MIN_SIZES": ["()", "(0,)"],
    "TEST.SLIDING_WINDOW.SIZE": ["[0, 5]", "[5]"],
    "SOLVER.STEPS": ["(-1,)", "(0.5,)"],
    "DATASETS.TRAIN": ["(1,)", "('',)"],
    "DATASETS.FILES": ["(1,)", "(None,)"],
    "SOLVER.AMP.DTYPE": ["fp8", ""],
    "INPUT.CORRUPT": ["ignore"],
    "INPUT.RANDOM_FLIP": ["both"],
    "TEST.BEST.MODE": ["maximum"],
    "OUTPUT_DIR": ["", "a\0b"],
    "INPUT.DATASET_MAPPER_NAME": [""],
}


@pytest.mark.parametrize(
    "key, value", [(key, value) for key, values in WRONG.items() for value in values], ids=short
)
def test_a_wrong_value_names_key_and_source(key, value):
    with pytest.raises(ValueError, match=f"opts: {key} must be .*got ") as error:
        get_config("toy/semantic/r18", [key, value])
    assert len(str(error.value)) < 400


def test_the_source_is_the_last_that_sets_the_key(write):
    write("SOLVER: {MAX_ITER: 0}\n", "base.yaml")
    path = write("_BASE_: base.yaml\nSOLVER: {BASE_LR: .nan}\n")
    with pytest.raises(ValueError, match=r"base\.yaml: SOLVER\.MAX_ITER .* at least 1 .*got 0"):
        get_config(path)
    with pytest.raises(ValueError, match=r"mine\.yaml: SOLVER\.BASE_LR must be a finite number"):
        get_config(path, ["SOLVER.MAX_ITER", "7"])
    opts = ["SOLVER.BASE_LR", "1", "SOLVER.MAX_ITER", "7"]
    assert get_config(path, opts).SOLVER.MAX_ITER == 7


@pytest.mark.parametrize("allowed, inside, outside", [
    (whole(1), [1, 2**31 - 1], [0, 2**31, 1.0, True, None, "1"]),
    (whole(-1, 5), [-1, 5], [-2, 6]),
    (number(0, 1), [0, 1, 0.5], [-1e-9, 1.1, NAN, True, "0"]),
    (number(above=0, below=1), [1e-9], [0, 1]),
    (choice("", "a"), ["", "a"], ["b", None, 0]),
    (choice(18, 34), [18], [18.0, True, "18"]),
    (list_of(whole(0)), [[0], (1, 2)], [[], [-1], "1", None, 3, {0: 1}]),
    (list_of(whole(0), 2), [[0, 1]], [[0], [0, 1, 2]]),
    (list_of(whole(0), may_be_empty=True), [[], ()], [[-1]]),
    (or_none(number(0)), [None, 1], [-1]),
])  # fmt: skip
def test_ranges_include_their_bounds(allowed, inside, outside):
    assert all(map(allowed.holds, inside)) and not any(map(allowed.holds, outside))
