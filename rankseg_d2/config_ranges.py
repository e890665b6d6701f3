"""The values that each key may have: of our keys (config.py), and of detectron2's that are used.

They are checked when a config is read. What depends on several keys, or on names that are
registered, is checked where it is used.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import short

FLOAT_TYPES = "float32", "bfloat16", "float16"  # of inference
_HIGH = 2**31 - 1  # of whole numbers


class Range(NamedTuple):
    """`text` says in an error which values are allowed; `holds(value)` says whether one is."""

    text: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int = _HIGH) -> Range:
    text = f"from {least} to {most:,}" if most != _HIGH else f"of at least {least} and below 2^31"
    return Range(f"a whole number {text}", lambda x: type(x) is int and least <= x <= most)


def number(
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Range:
    bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
    finite = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    text = " and ".join(f"{name} {bound:g}" for name, bound in finite.items())

    def holds(x):
        is_finite = type(x) in (int, float) and math.isfinite(x)
        return is_finite and least <= x <= most and above < x < below

    return Range(f"a finite number {text}".rstrip(), holds)


def choice(*values: Any) -> Range:
    text = ", ".join(map(repr, values[:-1]))
    return Range(f"{text} or {values[-1]!r}", lambda x: type(x) in (int, str) and x in values)


def text(meaning: str, may_be_empty: bool = False) -> Range:
    return Range(
        meaning, lambda x: isinstance(x, str) and "\0" not in x and (x != "" or may_be_empty)
    )


def list_of(item: Range, length: int | None = None, may_be_empty: bool = False) -> Range:
    """A list, or a tuple, with `length` items or any number of them."""
    count = f"of {length} values, each" if length else "of values, each"

    def holds(x):
        if not isinstance(x, list | tuple) or not (x or may_be_empty):
            return False
        return length in (None, len(x)) and all(map(item.holds, x))

    return Range(f"a list {count} {item.text}", holds)


def or_none(item: Range) -> Range:
    return Range(f"{item.text}, or None", lambda x: x is None or item.holds(x))


def choice_or_not(*values: str) -> Range:
    """One of the values; False, or None, for none of them, and True."""
    return Range(
        f"{', '.join(values)} or False",
        lambda x: x is None or type(x) is bool or (isinstance(x, str) and x in values),
    )


COUNT, SIZE = whole(0), whole(1)
LAYERS, WORKERS = whole(0, 1000), whole(0, 1000)
SHARE, BELOW_ONE = number(0, 1), number(0, below=1)
WEIGHT, POSITIVE = number(0), number(above=0)
SIZES, PAIR = list_of(SIZE), list_of(SIZE, 2)
NAME, NAME_OR_NONE = text("a name"), text("a name, or empty", may_be_empty=True)
NAMES, ANY_NAMES = list_of(NAME), list_of(NAME, may_be_empty=True)

# section -> key -> its range
_SECTIONS = {
    "MODEL": {
        "META_ARCHITECTURE": NAME,
        "DTYPE": choice(*FLOAT_TYPES),
        "WEIGHTS": or_none(text("a path or address", may_be_empty=True)),
        "PIXEL_MEAN": list_of(number()),
        "PIXEL_STD": list_of(POSITIVE),
    },
    "MODEL.BACKBONE": {"NAME": NAME, "FREEZE_AT": whole(0, 5)},
    "MODEL.RESNETS": {
        "NORM": NAME_OR_NONE,
        "STEM_TYPE": NAME,
        "DEPTH": choice(18, 34, 50, 101, 152),
        "OUT_FEATURES": NAMES,
        "STEM_OUT_CHANNELS": SIZE,
        "RES2_OUT_CHANNELS": SIZE,
        "NUM_GROUPS": SIZE,
        "WIDTH_PER_GROUP": SIZE,
        "RES4_DILATION": whole(1, 2),
        "RES5_DILATION": choice(1, 2, 4),
        "RES5_MULTI_GRID": list_of(SIZE, 3),
    },
    "MODEL.SWIN": {
        "PRETRAIN_IMG_SIZE": SIZE,
        "PATCH_SIZE": SIZE,
        "EMBED_DIM": SIZE,
        "DEPTHS": list_of(whole(1, 1000)),
        "NUM_HEADS": SIZES,
        "WINDOW_SIZE": SIZE,
        "MLP_RATIO": POSITIVE,
        "QK_SCALE": or_none(POSITIVE),
        "DROP_RATE": BELOW_ONE,
        "ATTN_DROP_RATE": BELOW_ONE,
        "DROP_PATH_RATE": BELOW_ONE,
        "OUT_FEATURES": NAMES,
    },
    "MODEL.SEMASK": {
        "WINDOW_SIZE": SIZE,
        "GLOBAL_STAGES": ANY_NAMES,
        "WEIGHT": WEIGHT,
    },
    "MODEL.MIT": {
        "EMBED_DIMS": list_of(SIZE, 4),
        "DEPTHS": list_of(whole(1, 1000), 4),
        "NUM_HEADS": list_of(SIZE, 4),
        "REDUCTIONS": list_of(SIZE, 4),
        "MLP_RATIO": POSITIVE,
        "NORM_EPS": POSITIVE,
        "DROP_PATH_RATE": BELOW_ONE,
        "OUT_FEATURES": NAMES,
    },
    "MODEL.VIT": {
        "IMAGE_SIZE": SIZE,
        "PATCH_SIZE": SIZE,
        "EMBED_DIM": SIZE,
        "DEPTH": whole(1, 1000),
        "NUM_HEADS": SIZE,
        "MLP_RATIO": POSITIVE,
        "NORM_EPS": POSITIVE,
        "DROP_RATE": BELOW_ONE,
        "DROP_PATH_RATE": BELOW_ONE,
        "LAYER_SCALE": WEIGHT,
        "REGISTERS": COUNT,
        "INTERPOLATION": choice("bicubic", "bilinear"),
        "OUT_FEATURES": NAMES,
    },
    "MODEL.EOMT": {
        "BLOCKS": whole(1, 1000),
        "MASK_START": list_of(COUNT, may_be_empty=True),
        "MASK_END": list_of(COUNT, may_be_empty=True),
    },
    "MODEL.CONDINST": {
        "NUM_CONVS": LAYERS,
        "MASK_DIM": SIZE,
        "MASK_WIDTH": SIZE,
        "CENTER_RADIUS": POSITIVE,
        "SIZES": list_of(POSITIVE, 4),
        "MAX_PROPOSALS": SIZE,
        "OVERLAP_WEIGHT": WEIGHT,
        "SCORE_THRESHOLD": SHARE,
        "CANDIDATES": SIZE,
        "NMS_THRESHOLD": SHARE,
    },
    "MODEL.BEIT": {
        "IMG_SIZE": PAIR,
        "PATCH_SIZE": SIZE,
        "EMBED_DIM": SIZE,
        "DEPTH": whole(1, 1000),
        "NUM_HEADS": SIZE,
        "MLP_RATIO": POSITIVE,
        "LAYER_SCALE": POSITIVE,
        "DROP_PATH_RATE": BELOW_ONE,
        "OUT_BLOCKS": list_of(SIZE, 4),
        "NORM": NAME_OR_NONE,
    },
    "MODEL.CSWIN": {
        "EMBED_DIM": SIZE,
        "DEPTHS": list_of(whole(1, 1000), 4),
        "NUM_HEADS": list_of(SIZE, 4),
        "STRIPE_WIDTHS": list_of(SIZE, 3),
        "MLP_RATIO": POSITIVE,
        "DROP_PATH_RATE": BELOW_ONE,
        "OUT_FEATURES": NAMES,
    },
    "MODEL.VOLO": {
        "IMAGE_SIZE": SIZE,
        "EMBED_DIMS": PAIR,
        "DEPTHS": list_of(whole(1, 1000), 4),
        "NUM_HEADS": PAIR,
        "STEM_DIM": SIZE,
        "MLP_RATIO": POSITIVE,
        "NORM": NAME_OR_NONE,
        "DROP_PATH_RATE": BELOW_ONE,
        "OUT_FEATURES": NAMES,
    },
    "MODEL.VIT_ADAPTER": {
        "CONV_CHANNELS": SIZE,
        "HEADS": SIZE,
        "POINTS": SIZE,
        "VALUE_RATIO": POSITIVE,
        "FFN_RATIO": POSITIVE,
        "NORM": NAME_OR_NONE,
    },
    "MODEL.TIMM": {
        "NAME": NAME,
        "PRETRAINED": choice_or_not("package", "hub"),
        "OUT_FEATURES": NAMES,
        "DROP_PATH_RATE": BELOW_ONE,
    },
    "MODEL.SEM_SEG_HEAD": {
        "NAME": NAME,
        "PIXEL_DECODER_NAME": NAME,
        "NORM": NAME_OR_NONE,
        "IN_FEATURES": NAMES,
        "NUM_CLASSES": whole(1, 65534),  # of a label image with 16 bits, one value is ignored
        "IGNORE_VALUE": whole(-1, 65535),
        "CONVS_DIM": SIZE,
        "MASK_DIM": SIZE,
        "COMMON_STRIDE": SIZE,
        "LOSS_WEIGHT": WEIGHT,
        "TRANSFORMER_ENC_LAYERS": LAYERS,
        "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": NAMES,
        "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": SIZE,
        "DEFORMABLE_TRANSFORMER_ENCODER_DIM_FEEDFORWARD": SIZE,
        "DROPOUT": BELOW_ONE,
        "NUM_BLOCKS": LAYERS,
        "ASPP_DILATIONS": SIZES,
    },
    "MODEL.SEM_SEG_HEAD.AUXILIARY": {
        "IN_FEATURE": NAME_OR_NONE,
        "CHANNELS": SIZE,
        "WEIGHT": WEIGHT,
    },
    "MODEL.SEM_SEG_HEAD.ENCODING": {"CODES": COUNT, "WEIGHT": WEIGHT},
    "MODEL.SEM_SEG_HEAD.ESSNET": {"NEIGHBOURS": SIZE, "DIM": SIZE},
    "MODEL.MASK_FORMER": {
        "TRANSFORMER_DECODER_NAME": NAME,
        "TRANSFORMER_IN_FEATURE": NAME,
        "NO_OBJECT_WEIGHT": WEIGHT,
        "CLASS_WEIGHT": WEIGHT,
        "MASK_WEIGHT": WEIGHT,
        "DICE_WEIGHT": WEIGHT,
        "NUM_OBJECT_QUERIES": SIZE,
        "HIDDEN_DIM": SIZE,
        "NHEADS": SIZE,
        "DIM_FEEDFORWARD": SIZE,
        "ENC_LAYERS": LAYERS,
        "DEC_LAYERS": whole(1, 1000),
        "DROPOUT": BELOW_ONE,
        "SIZE_DIVISIBILITY": whole(-1),  # -1: what the backbone needs
        "TRAIN_NUM_POINTS": SIZE,
        "OVERSAMPLE_RATIO": number(1),
        "IMPORTANCE_SAMPLE_RATIO": SHARE,
        "MASK_LOSS": choice("auto", "points", "dense"),
    },
    "MODEL.MASK_FORMER.TEST": {
        "OBJECT_MASK_THRESHOLD": SHARE,
        "OVERLAP_THRESHOLD": SHARE,
        "SCORE_THRESHOLD": SHARE,
        "DETECTIONS_PER_VIDEO": COUNT,
    },
    "MODEL.RANKSEG": {
        "HEAD": NAME,
        "GROUPS": COUNT,
        "LOSS": NAME,
        "TOPK": COUNT,
        "LOSS_WEIGHT": WEIGHT,
        "HIDDEN_DIM": SIZE,
        "LAYER": SIZE,
        "POOL": COUNT,
        "THRESHOLD": BELOW_ONE,
        "RANDOM_SHARE": SHARE,
        "TOPK_SCHEDULE": list_of(list_of(COUNT, 2), may_be_empty=True),
        "SCORES": NAME,
        "SCORE_WEIGHTS": list_of(WEIGHT, 2),
        "GATE": WEIGHT,
    },
    "INPUT": {
        "FORMAT": NAME,
        "DATASET_MAPPER_NAME": NAME,
        "MIN_SIZE_TRAIN": SIZES,
        "MIN_SIZE_TRAIN_SAMPLING": choice("choice", "range", "choice_by_clip", "range_by_clip"),
        "MAX_SIZE_TRAIN": SIZE,
        "MIN_SIZE_TEST": COUNT,  # 0: the image's own
        "MAX_SIZE_TEST": SIZE,
        "RANDOM_FLIP": choice("none", "horizontal", "vertical", "flip_by_clip"),
        "SIZE_DIVISIBILITY": whole(-1),
        "IMAGE_SIZE": SIZE,
        "MIN_SCALE": POSITIVE,
        "MAX_SCALE": POSITIVE,
        "SAMPLING_FRAME_NUM": SIZE,
        "SAMPLING_FRAME_RANGE": COUNT,
        "SAMPLING_INTERVAL": SIZE,
        "AUGMENTATIONS": list_of(
            choice("brightness", "contrast", "saturation", "rotation"), may_be_empty=True
        ),
        "CORRUPT": choice("raise", "skip"),
    },
    "INPUT.ROTATION": {
        "DEGREES": number(least=0, most=180),
        "PROBABILITY": number(least=0, most=1),
    },
    "INPUT.CROP": {
        "TYPE": choice("relative", "relative_range", "absolute", "absolute_range"),
        "SIZE": list_of(POSITIVE, 2),
        "SINGLE_CATEGORY_MAX_AREA": number(above=0, most=1),
    },
    "DATASETS": {"FILES": ANY_NAMES, "TRAIN": ANY_NAMES, "TEST": ANY_NAMES},
    "DATALOADER": {"NUM_WORKERS": WORKERS, "SAMPLER_TRAIN": NAME, "REPEAT_THRESHOLD": WEIGHT},
    "SOLVER": {
        "OPTIMIZER": NAME,
        "LR_SCHEDULER_NAME": NAME,
        "IMS_PER_BATCH": SIZE,
        "REFERENCE_WORLD_SIZE": COUNT,
        "REFERENCE_BATCH_SIZE": COUNT,
        "ACCUMULATION_STEPS": SIZE,
        "MAX_ITER": SIZE,
        "CHECKPOINT_PERIOD": SIZE,
        "KEEP_CHECKPOINTS": COUNT,
        "BASE_LR": POSITIVE,
        "BASE_LR_END": WEIGHT,
        "BACKBONE_MULTIPLIER": WEIGHT,
        "MLHEAD_MULTIPLIER": WEIGHT,
        "BIAS_LR_FACTOR": WEIGHT,
        "LAYER_DECAY": number(above=0, most=1),
        "MOMENTUM": BELOW_ONE,
        "WEIGHT_DECAY": WEIGHT,
        "WEIGHT_DECAY_NORM": WEIGHT,
        "WEIGHT_DECAY_EMBED": WEIGHT,
        "WEIGHT_DECAY_BIAS": or_none(WEIGHT),
        "STEPS": list_of(COUNT, may_be_empty=True),
        "GAMMA": POSITIVE,
        "NUM_DECAYS": SIZE,
        "POLY_LR_POWER": WEIGHT,
        "POLY_LR_CONSTANT_ENDING": SHARE,
        "WARMUP_FACTOR": SHARE,
        "WARMUP_ITERS": COUNT,
        "WARMUP_METHOD": choice("linear", "constant"),
    },
    "SOLVER.AMP": {"DTYPE": choice("fp16", "bf16")},
    "SOLVER.EMA": {"DECAY": BELOW_ONE},
    "SOLVER.CLIP_GRADIENTS": {
        "CLIP_TYPE": choice("full_model", "norm", "value"),
        "CLIP_VALUE": WEIGHT,  # 0 clips nothing
        "NORM_TYPE": Range("a number above 0, or inf", lambda x: type(x) in (int, float) and x > 0),
    },
    "SOLVER.MLHEAD_GUARD": {"METRIC": NAME, "DROP": WEIGHT, "FACTOR": number(above=0, below=1)},
    "TEST": {"EVAL_PERIOD": COUNT, "DETECTIONS_PER_IMAGE": COUNT, "PICTURES": COUNT},
    "TEST.BEST": {"METRIC": NAME_OR_NONE, "MODE": choice("max", "min")},
    "TEST.AUG": {"MIN_SIZES": SIZES, "MAX_SIZE": SIZE},
    "TEST.PRECISE_BN": {"NUM_ITER": SIZE},
    "TEST.SLIDING_WINDOW": {"SIZE": PAIR, "STRIDE": PAIR},
    "TEST.VIDEO": {
        "WINDOW": COUNT,
        "OVERLAP": COUNT,
        "RANKING": choice("running", "two_pass"),
        "LINK_THRESHOLD": SHARE,
        "LINK_PATIENCE": COUNT,
    },
    "": {
        "OUTPUT_DIR": text("the path of a folder"),
        "SEED": whole(-1),
        "LOGGERS": list_of(choice("wandb", "mlflow"), may_be_empty=True),
        "VIS_PERIOD": COUNT,
        "FLOAT32_PRECISION": choice("", "highest", "high", "medium"),
    },
}
RANGES = {
    f"{section}.{name}".removeprefix("."): allowed
    for section, keys in _SECTIONS.items()
    for name, allowed in keys.items()
}


def check_range(key: str, value: Any, source: str) -> None:
    """ValueError that names the source, unless the key may have this value."""
    allowed = RANGES.get(key)
    if allowed is not None and not allowed.holds(value):
        raise ValueError(f"{source}: {key} must be {allowed.text}; got {short(value)}")
