"""The config keys of rankseg_d2, MaskFormer and Mask2Former, and `get_config`."""

import copy
import functools
import logging
import os
import re
from collections.abc import Iterable, Sequence

from detectron2.config import CfgNode, get_cfg

from ._yaml import set_keys, settable_keys
from .config_files import parse_sources, read_sources
from .config_ranges import check_range
from .tasks import class_list

logger = logging.getLogger(__name__)

# The keys added to detectron2's. Names and defaults are upstream's, so its yaml files load
# unchanged. Keys that upstream does not have are marked "ours". config_ranges.py lists the values
# that each may have.
KEYS = {
    "MODEL": {
        "RANKSEG": {
            "FLAG": False,  # rank the categories first, then classify among the first TOPK
            "TOPK": 0,  # kappa, the number of categories kept: 1 to NUM_CLASSES
            "USE_GT": False,  # the oracle: rank by the labels, to measure the ceiling
            "LOSS_WEIGHT": 0,  # weight of the multi-label loss; 10 in the paper
            "HIDDEN_DIM": 512,  # width of the multi-label head
            "SHARE_EMBEDDING": False,  # True: the class tokens are the classifier's weights
            # ours
            # multi-label head: encoder, decoder or pooling; as published for pixel classifiers:
            # separable, query2label, conv_pooling, and for Segmenter block
            "HEAD": "encoder",
            "POOL": 0,  # pixel classifiers: the head reads a map of so many cells squared; 0: all
            "LAYER": 3,  # its input: the queries after this decoder layer, counted from 1
            "LOSS": "asymmetric",  # or bce
            "THRESHOLD": 0.0,  # above 0: of the TOPK, keep only categories more probable than this
            "KEEP_TRUE": False,  # True: training keeps the true categories, whatever their scores
            "FULL_SCORES": False,  # True: semantic results have all C score maps, not TOPK
        },
        "MASK_FORMER": {
            # loss weights
            "DEEP_SUPERVISION": True,  # losses after every decoder layer, not only the last
            "NO_OBJECT_WEIGHT": 0.1,  # of the no-object class in the class loss
            "CLASS_WEIGHT": 1.0,
            "MASK_WEIGHT": 20.0,
            "DICE_WEIGHT": 1.0,
            # transformer decoder
            "TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
            "TRANSFORMER_IN_FEATURE": "res5",  # in Mask2Former multi_scale_pixel_decoder
            "NUM_OBJECT_QUERIES": 100,
            "HIDDEN_DIM": 256,
            "NHEADS": 8,
            "DIM_FEEDFORWARD": 2048,
            "ENC_LAYERS": 0,  # encoder layers before the decoder
            "DEC_LAYERS": 6,  # in Mask2Former one more than layers: 10 means 9 layers
            "DROPOUT": 0.1,
            "PRE_NORM": False,  # True: norms before attention and feed-forward, not after
            "ENFORCE_INPUT_PROJ": False,  # True: project the input even if its width fits
            # ours: gradient checkpointing in pixel and transformer decoder: less memory, more time
            "USE_CHECKPOINT": False,
            "SIZE_DIVISIBILITY": 32,  # images are padded to a multiple of this
            # point-sampled mask losses (Mask2Former)
            "TRAIN_NUM_POINTS": 12544,  # points per mask
            "OVERSAMPLE_RATIO": 3.0,  # so many times more are drawn, to choose uncertain ones from
            "IMPORTANCE_SAMPLE_RATIO": 0.75,  # the share of uncertain ones; the others are random
            # ours: "points" (Mask2Former), "dense" (MaskFormer: all pixels), or "auto": "points" if
            # TRANSFORMER_IN_FEATURE is multi_scale_pixel_decoder, else "dense"
            "MASK_LOSS": "auto",
            "TEST": {
                "SEMANTIC_ON": True,
                "INSTANCE_ON": False,
                "PANOPTIC_ON": False,
                "OBJECT_MASK_THRESHOLD": 0.0,  # panoptic: drop queries with a lower score
                "OVERLAP_THRESHOLD": 0.0,  # panoptic: drop segments less visible than this share
                # semantic; True: masks are resized before the sigmoid, not after
                "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,
                "SCORE_THRESHOLD": 0.0,  # ours: drop instances with a lower score
                "DETECTIONS_PER_VIDEO": 10,  # ours: most instances per clip
            },
        },
        "SEM_SEG_HEAD": {
            "PIXEL_DECODER_NAME": "BasePixelDecoder",
            "MASK_DIM": 256,  # channels of the per-pixel embedding
            "TRANSFORMER_ENC_LAYERS": 0,  # encoder layers of the pixel decoder
            "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
            "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,  # not read, as upstream: NHEADS is
            "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,
            "USE_LAYERNORM": False,  # with RankSeg: cosine classifier, rank-adaptive temperature
            # pixel classifiers, ours
            "AVERAGE_ALL": False,  # the loss is divided by all pixels, ignored ones included
            "STRETCH": False,  # True: maps are resized to the image as if they had no padding
            "DROPOUT": 0.1,  # before the classifier
            "AUXILIARY": {  # a head on an earlier level, for training alone
                "IN_FEATURE": "",  # the level, such as res4; "": no such head
                "CHANNELS": 256,
                "WEIGHT": 0.4,  # of its loss
            },
            # DeepLab's; nothing reads them, upstream's yaml files have them
            "LOSS_TYPE": "hard_pixel_mining",
            "PROJECT_FEATURES": ["res2"],
            "PROJECT_CHANNELS": [48],
            "ASPP_CHANNELS": 256,
            "ASPP_DILATIONS": [6, 12, 18],
            "ASPP_DROPOUT": 0.1,
            "USE_DEPTHWISE_SEPARABLE_CONV": False,
        },
        "RESNETS": {  # of DeepLab's ResNets, such as R101c
            "STEM_TYPE": "deeplab",
            "RES4_DILATION": 1,
            "RES5_MULTI_GRID": [1, 2, 4],
        },
        "SWIN": {  # the defaults are Swin-T's
            "PRETRAIN_IMG_SIZE": 224,
            "PATCH_SIZE": 4,
            "EMBED_DIM": 96,
            "DEPTHS": [2, 2, 6, 2],
            "NUM_HEADS": [3, 6, 12, 24],
            "WINDOW_SIZE": 7,
            "MLP_RATIO": 4.0,
            "QKV_BIAS": True,
            "QK_SCALE": None,  # None: 1 / sqrt(channels of a head)
            "DROP_RATE": 0.0,
            "ATTN_DROP_RATE": 0.0,
            "DROP_PATH_RATE": 0.3,
            "APE": False,  # absolute position embedding
            "PATCH_NORM": True,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "TIMM": {  # ours: MODEL.BACKBONE.NAME TimmBackbone is any model of timm
            "NAME": "resnet18",
            # package: weights of an installed package; hub or True: timm downloads its own; None
            # or False: random weights
            "PRETRAINED": None,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "DROP_PATH_RATE": 0.0,
        },
    },
    "INPUT": {
        "DATASET_MAPPER_NAME": "mask_former_semantic",  # docs/data.md lists the mappers
        "COLOR_AUG_SSD": False,  # SSD's color augmentation
        "SIZE_DIVISIBILITY": -1,  # training crops are padded to a multiple of this; -1: no padding
        "CROP": {"SINGLE_CATEGORY_MAX_AREA": 1.0},  # crop again if one category covers more
        # large-scale jitter, for panoptic and instance segmentation
        "IMAGE_SIZE": 1024,
        "MIN_SCALE": 0.1,
        "MAX_SCALE": 2.0,
        # clips of a video
        "SAMPLING_FRAME_NUM": 2,  # frames of a training clip
        "SAMPLING_FRAME_RANGE": 20,  # other frames are at most this far from the reference frame
        "SAMPLING_FRAME_SHUFFLE": False,  # True: frames in random order
        "SAMPLING_RANDOM": True,  # False: frames that are SAMPLING_INTERVAL apart
        "SAMPLING_INTERVAL": 5,
        "AUGMENTATIONS": [],  # of brightness, contrast, saturation, rotation
        # ours
        "CORRUPT": "raise",  # or skip: warn about unreadable training files and go on
        "KEEP_EMPTY": False,  # True: objects outside the crop stay, with empty masks
    },
    # ours: yaml files of own data sets (docs/own_data.md). They are registered and set TRAIN and
    # TEST. NUM_CLASSES and IGNORE_VALUE follow every registered data set.
    "DATASETS": {"FILES": ()},
    "SOLVER": {
        "OPTIMIZER": "ADAMW",
        "BACKBONE_MULTIPLIER": 0.1,  # of the learning rate, for the backbone
        # ours: of the learning rate of a backbone parameter, once for each layer above its own
        "LAYER_DECAY": 1.0,
        "MLHEAD_MULTIPLIER": 1.0,  # of the learning rate, for the multi-label head
        "WEIGHT_DECAY_EMBED": 0.0,  # weight decay of embeddings
        "POLY_LR_POWER": 0.9,  # of WarmupPolyLR
        "POLY_LR_CONSTANT_ENDING": 0.0,  # the rate stays above this share of its base
        "AMP": {"DTYPE": "fp16"},  # ours: fp16 or bf16; needs SOLVER.AMP.ENABLED True
        "ACCUMULATION_STEPS": 1,  # ours: run IMS_PER_BATCH images in this many equal parts
        "KEEP_CHECKPOINTS": 2,  # ours: the newest so many, beside the best and final one; 0: all
        # ours: BASE_LR is for a batch of this size and scales with IMS_PER_BATCH; 0: no scaling
        "REFERENCE_BATCH_SIZE": 0,
        # ours: if METRIC of an evaluation falls by more than DROP below its best value, multiply
        # the learning rate of the multi-label head by FACTOR
        "MLHEAD_GUARD": {
            "ENABLED": False,
            "METRIC": "multilabel/mAP",
            "DROP": 0.5,
            "FACTOR": 0.1,
        },
    },
    "TEST": {  # ours
        "PICTURES": 8,  # images shown in sheet.png, with ground truth, prediction and ranking
        "SAVE_PREDICTIONS": False,  # True: evaluators also write predictions, in COCO's formats
        # save the checkpoint with the best METRIC, such as sem_seg/mIoU, as model_best.pth; "": off
        "BEST": {"METRIC": "", "MODE": "max"},  # or min, if lower is better
        # semantic results from windows (height, width) of the image, not from all of it at once
        "SLIDING_WINDOW": {"ENABLED": False, "SIZE": [512, 512], "STRIDE": [341, 341]},
        "VIDEO": {  # whole videos in bounded memory (docs/video.md)
            "WINDOW": 0,  # frames of a window; 0: the whole video is one window
            "OVERLAP": 4,  # frames that neighbouring windows share
            "RANKING": "running",  # or two_pass: rank all windows first, then segment
            "LINK_THRESHOLD": 0.5,  # least IoU at which objects of two windows are linked
            "LINK_PATIENCE": 3,  # a track is closed if more windows than this have no match
        },
    },
    "LOGGERS": [],  # ours: of wandb, mlflow: where metrics go beside OUTPUT_DIR
    "LOG_OUTPUT": None,  # nothing reads it; upstream's yaml files have it
}


def add_rankseg_config(cfg: CfgNode) -> None:
    """Add the keys that `cfg` lacks, and register our models; existing keys keep their values."""
    from . import modeling  # noqa: F401

    _add_missing(cfg, KEYS)


def _add_missing(cfg: CfgNode, keys: dict) -> None:
    for name, default in keys.items():
        if not isinstance(default, dict):
            cfg.setdefault(name, copy.deepcopy(default))
        else:
            _add_missing(cfg.setdefault(name, CfgNode()), default)


def get_config(name_or_path: str | os.PathLike, opts: Sequence = ()) -> CfgNode:
    """The config of a yaml file or of a shipped config's name, such as "toy/semantic/r18".

    `opts` overrides single keys: ["KEY", value, "KEY=VALUE", ...].
    """
    return _config_of(read_sources(name_or_path, opts))


def parse_config(text: str, name: str, opts: Sequence = ()) -> CfgNode:
    """The config of a yaml text; errors call it `name`. `opts` as in `get_config`."""
    return _config_of(parse_sources(text, name, opts))


def _config_of(found: Iterable[tuple[str, dict]]) -> CfgNode:
    """The config of (name in errors, keys), later ones win."""
    cfg = get_cfg()
    add_rankseg_config(cfg)
    keys = settable_keys(cfg)
    sources = []  # (name, its keys), in the order of setting
    for source, values in found:
        set_keys(keys, values, source)
        sources.append((source, set(settable_keys(values))))
    for name, source in {name: source for source, names in sources for name in names}.items():
        check_range(name, keys[name].value, source)
    _register_shapes(cfg)
    _follow_data(cfg, sources)
    resolve_device(cfg)
    _resolve_meta_architecture(cfg)
    return cfg


def _resolve_meta_architecture(cfg: CfgNode) -> None:
    """Set PixelClassifier in upstream's per-pixel configs, which name SemanticSegmentor."""
    from .modeling import pixel_heads

    heads = pixel_heads.__all__
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" and cfg.MODEL.SEM_SEG_HEAD.NAME in heads:
        cfg.MODEL.META_ARCHITECTURE = "PixelClassifier"


def _register_shapes(cfg: CfgNode) -> None:
    """Register the built-in data sets that DATASETS names; their names give the size."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if any(str(name).startswith("shapes") for name in names):
        from .data.datasets.shapes import register_named

        register_named(names)


def _follow_data(cfg: CfgNode, sources: list[tuple[str, set[str]]]) -> None:
    """Set the keys that follow from the data sets."""
    if cfg.DATASETS.FILES or cfg.DATASETS.TRAIN:
        from .data.own.config_defaults import follow_data

        follow_data(cfg, sources, class_list(cfg))


def resolve_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu", with one warning per process, if its device is absent."""
    import torch

    device = cfg.MODEL.DEVICE
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", str(device)):
        raise ValueError(f"MODEL.DEVICE must be cpu, cuda, cuda:<number> or mps, got {device!r}")
    kind, _, number = device.partition(":")
    is_present = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if not is_present[kind]():
        _warn_absent(kind)
        cfg.MODEL.DEVICE = "cpu"
    elif number and int(number) >= torch.cuda.device_count():
        raise ValueError(
            f"MODEL.DEVICE is {device}, but the CUDA devices here are numbered 0 to "
            f"{torch.cuda.device_count() - 1}; set one of these, or cuda"
        )


@functools.cache
def _warn_absent(kind: str) -> None:
    logger.warning("MODEL.DEVICE is %s, but torch finds no such device here: using the cpu", kind)
