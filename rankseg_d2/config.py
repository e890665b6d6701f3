"""The config keys of rankseg_d2, MaskFormer and Mask2Former, and the way to get a config."""

import copy
import functools
import logging
import re

from detectron2.config import CfgNode, get_cfg

from ._yaml import set_keys, settable_keys
from .config_files import read_sources
from .errors import nearest
from .tasks import class_list

logger = logging.getLogger(__name__)

# What is added to detectron2's keys. Names and defaults are upstream's, so that its yaml files
# load unchanged; the keys without a counterpart there are marked "ours".
KEYS = {
    "MODEL": {
        "RANKSEG": {
            "FLAG": False,  # rank the categories first, then classify among the first TOPK
            "TOPK": 0,  # kappa, the number of categories kept: 1 to NUM_CLASSES
            "USE_GT": False,  # the oracle: take the ranking from the labels, to find the ceiling
            "LOSS_WEIGHT": 0,  # of the multi-label loss; the paper's is 10
            "HIDDEN_DIM": 512,  # width of the multi-label head
            "SHARE_EMBEDDING": False,  # class tokens are the classifier's embedding
            # ours
            "HEAD": "encoder",  # multi-label head: encoder, decoder or pooling
            "LAYER": 3,  # decoder layer whose query features it reads, counted from 1
            "LOSS": "asymmetric",  # or bce
            "THRESHOLD": 0.0,  # above 0: keep fewer than TOPK, only those more probable than this
            "KEEP_TRUE": False,  # training ranks an image's true categories whatever their scores
            "FULL_SCORES": False,  # semantic results hold all C score maps, not the TOPK alone
        },
        "MASK_FORMER": {
            # loss weights
            "DEEP_SUPERVISION": True,
            "NO_OBJECT_WEIGHT": 0.1,
            "CLASS_WEIGHT": 1.0,
            "MASK_WEIGHT": 20.0,
            "DICE_WEIGHT": 1.0,
            # transformer decoder
            "TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
            "TRANSFORMER_IN_FEATURE": "res5",  # or multi_scale_pixel_decoder for Mask2Former
            "NUM_OBJECT_QUERIES": 100,
            "HIDDEN_DIM": 256,
            "NHEADS": 8,
            "DIM_FEEDFORWARD": 2048,
            "ENC_LAYERS": 0,
            "DEC_LAYERS": 6,  # Mask2Former counts the prediction before layer 1 too: 10 is 9 layers
            "DROPOUT": 0.1,
            "PRE_NORM": False,
            "ENFORCE_INPUT_PROJ": False,
            # ours: gradient checkpointing of pixel and transformer decoder: less memory, more time
            "USE_CHECKPOINT": False,
            "SIZE_DIVISIBILITY": 32,  # images are padded to a multiple of it
            # point-sampled mask losses (Mask2Former)
            "TRAIN_NUM_POINTS": 12544,
            "OVERSAMPLE_RATIO": 3.0,
            "IMPORTANCE_SAMPLE_RATIO": 0.75,
            # ours: "points", "dense" (MaskFormer's), or "auto", which takes "dense" where
            # TRANSFORMER_IN_FEATURE is a single map, as in MaskFormer's own configs
            "MASK_LOSS": "auto",
            "TEST": {
                "SEMANTIC_ON": True,
                "INSTANCE_ON": False,
                "PANOPTIC_ON": False,
                "OBJECT_MASK_THRESHOLD": 0.0,  # panoptic: queries with a lower score are dropped
                "OVERLAP_THRESHOLD": 0.0,  # panoptic: segments with less left of them are dropped
                "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,  # resize masks, then classify
                "SCORE_THRESHOLD": 0.0,  # ours: instances with a lower score are dropped
                "DETECTIONS_PER_VIDEO": 10,  # ours: at most so many instances per clip
            },
        },
        "SEM_SEG_HEAD": {
            "PIXEL_DECODER_NAME": "BasePixelDecoder",
            "MASK_DIM": 256,  # channels of the per-pixel embedding
            "TRANSFORMER_ENC_LAYERS": 0,  # of the pixel decoder
            "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
            "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,
            "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,
            "USE_LAYERNORM": False,  # cosine classifier and rank-adaptive temperature
            # DeepLab's, kept so that yaml files load
            "LOSS_TYPE": "hard_pixel_mining",
            "PROJECT_FEATURES": ["res2"],
            "PROJECT_CHANNELS": [48],
            "ASPP_CHANNELS": 256,
            "ASPP_DILATIONS": [6, 12, 18],
            "ASPP_DROPOUT": 0.1,
            "USE_DEPTHWISE_SEPARABLE_CONV": False,
        },
        "RESNETS": {  # DeepLab's: the backbones with a "c", such as R101c
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
            "PRETRAINED": False,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "DROP_PATH_RATE": 0.0,
        },
    },
    "INPUT": {
        "DATASET_MAPPER_NAME": "mask_former_semantic",
        "COLOR_AUG_SSD": False,
        "SIZE_DIVISIBILITY": -1,  # training crops are padded to a multiple of it; -1: not
        "CROP": {"SINGLE_CATEGORY_MAX_AREA": 1.0},  # try again if one category covers more
        # large-scale jitter, for panoptic and instance segmentation
        "IMAGE_SIZE": 1024,
        "MIN_SCALE": 0.1,
        "MAX_SCALE": 2.0,
        # clips of a video
        "SAMPLING_FRAME_NUM": 2,
        "SAMPLING_FRAME_RANGE": 20,  # the others are so near to a reference frame, or nearer
        "SAMPLING_FRAME_SHUFFLE": False,  # True: they are not in the order of time
        "SAMPLING_RANDOM": True,  # False: the frames are SAMPLING_INTERVAL apart
        "SAMPLING_INTERVAL": 5,
        "AUGMENTATIONS": [],  # more: brightness, contrast, saturation, rotation
        # ours
        "CORRUPT": "raise",  # or skip: warn of training files that cannot be read, and go on
        "KEEP_EMPTY": False,  # True: objects that the crop cut away stay, with empty masks
    },
    # ours: yaml files of own data sets, which are registered (docs/own_data.md) and set TRAIN and
    # TEST; NUM_CLASSES and IGNORE_VALUE follow any data set that is registered
    "DATASETS": {"FILES": ()},
    "SOLVER": {
        "OPTIMIZER": "ADAMW",
        "BACKBONE_MULTIPLIER": 0.1,  # of the learning rate
        # ours: of the learning rate, once for each layer of the backbone above a parameter's own
        "LAYER_DECAY": 1.0,
        "MLHEAD_MULTIPLIER": 1.0,  # of the learning rate, for the multi-label head
        "WEIGHT_DECAY_EMBED": 0.0,
        "POLY_LR_POWER": 0.9,
        "POLY_LR_CONSTANT_ENDING": 0.0,
        "AMP": {"DTYPE": "fp16"},  # ours: fp16 or bf16; SOLVER.AMP.ENABLED False is off
        "ACCUMULATION_STEPS": 1,  # ours: IMS_PER_BATCH is run in this many equal parts
        # ours: BASE_LR is for a batch of this size, and scales with IMS_PER_BATCH; 0: it does not
        "REFERENCE_BATCH_SIZE": 0,
        # ours: where METRIC of an evaluation falls by more than DROP below the best so far, the
        # rate of the multi-label head is multiplied by FACTOR
        "MLHEAD_GUARD": {
            "ENABLED": False,
            "METRIC": "multilabel/mAP",
            "DROP": 0.5,
            "FACTOR": 0.1,
        },
    },
    "TEST": {  # ours
        "PICTURES": 0,  # so many images go to sheet.png, with truth, prediction and ranking
        "SAVE_PREDICTIONS": False,  # evaluators write what was predicted too, in COCO's formats
        # model_best.pth is the checkpoint with the best METRIC, such as sem_seg/mIoU; "": none
        "BEST": {"METRIC": "", "MODE": "max"},  # or min
        # semantic results from windows of the image (height, width), not from all of it at once
        "SLIDING_WINDOW": {"ENABLED": False, "SIZE": [512, 512], "STRIDE": [341, 341]},
        "VIDEO": {  # whole videos in bounded memory (docs/video.md)
            "WINDOW": 0,  # so many frames at a time; 0: the whole video at once
            "OVERLAP": 4,  # frames that two windows share
            "RANKING": "running",  # or two_pass: rank first, by all windows, then segment
            "LINK_THRESHOLD": 0.5,  # less alike objects of two windows are not the same
            "LINK_PATIENCE": 3,  # an object that more windows than that have missed is gone
        },
    },
    "LOG_OUTPUT": None,  # upstream's; nothing reads it
}


def add_rankseg_config(cfg: CfgNode) -> None:
    """Add the keys that `cfg` lacks; those it has, from whatever project, keep their values.

    The models that the keys are for are registered with it.
    """
    from . import modeling  # noqa: F401

    _add_missing(cfg, KEYS)


def _add_missing(cfg: CfgNode, keys: dict) -> None:
    for name, default in keys.items():
        if not isinstance(default, dict):
            cfg.setdefault(name, copy.deepcopy(default))
        else:
            _add_missing(cfg.setdefault(name, CfgNode()), default)


def get_config(name_or_path, opts=()) -> CfgNode:
    """The config of a yaml file, or of a shipped one by name ("toy/semantic/r18"), then `opts`.

    `opts` overrides single keys: ["KEY", value, "KEY=VALUE", ...].
    """
    cfg = get_cfg()
    add_rankseg_config(cfg)
    keys = settable_keys(cfg)
    sources = []  # (name, its keys), in the order in which they are set
    for source, values in read_sources(name_or_path, opts):
        set_keys(keys, values, source)
        sources.append((source, set(settable_keys(values))))
    _register_shapes(cfg)
    _follow_data(cfg, sources)
    resolve_device(cfg)
    resolve_meta_architecture(cfg)
    return cfg


def resolve_meta_architecture(cfg: CfgNode) -> None:
    """Set PixelClassifier where upstream's configs of the per-pixel baselines name detectron2's."""
    from .modeling import pixel_heads

    heads = pixel_heads.__all__
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" and cfg.MODEL.SEM_SEG_HEAD.NAME in heads:
        cfg.MODEL.META_ARCHITECTURE = "PixelClassifier"


def _register_shapes(cfg: CfgNode) -> None:
    """Register the built-in data sets that are named, which there are in any size."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if any(str(name).startswith("shapes") for name in names):
        from .data.datasets.shapes import register_named

        register_named(names)


def _follow_data(cfg: CfgNode, sources: list[tuple[str, set[str]]]) -> None:
    """Set what follows from the data sets, where there are any."""
    if cfg.DATASETS.FILES or cfg.DATASETS.TRAIN:
        from .data.own.config_defaults import follow_data

        follow_data(cfg, sources, class_list(cfg))


def resolve_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu", with one warning per process, where its device is absent."""
    import torch

    device = cfg.MODEL.DEVICE
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", str(device)):
        raise ValueError(f"MODEL.DEVICE must be cpu, cuda, cuda:<number> or mps, got {device!r}")
    kind, _, number = device.partition(":")
    is_there = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if not is_there[kind]():
        _warn_absent(kind)
        cfg.MODEL.DEVICE = "cpu"
    elif number and int(number) >= torch.cuda.device_count():
        raise ValueError(
            f"MODEL.DEVICE is {device}, but the CUDA devices here are numbered 0 to "
            f"{torch.cuda.device_count() - 1}; take one of these, or plain cuda"
        )


@functools.cache
def _warn_absent(kind: str) -> None:
    logger.warning("MODEL.DEVICE is %s, but torch finds no such device here: using the cpu", kind)


def check_datasets(cfg: CfgNode) -> None:
    """Raise KeyError if DATASETS.TRAIN or DATASETS.TEST names a data set that is not registered."""
    from detectron2.data import DatasetCatalog

    from .data.own.config_defaults import register_files

    register_files(cfg)
    registered = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in registered:
                near = ", ".join(nearest(name, registered)) or "none, for no data set is registered"
                raise KeyError(
                    f"DATASETS.{key}: data set {name!r} is not registered; the nearest names are "
                    f"{near}; DatasetCatalog.register adds one"
                )


def check_num_classes(cfg: CfgNode) -> None:
    """Raise ValueError where a data set of DATASETS has not NUM_CLASSES classes.

    Data sets whose metadata has no class names, and models that do not classify by that key, are
    not checked.
    """
    from .modeling.meta_arch import model_class

    if model_class(cfg) is None:
        return
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for key in ("TRAIN", "TEST"):
        for dataset in cfg.DATASETS[key]:
            names = _class_names(cfg, dataset)
            if names is not None and len(names) != num_classes:
                raise ValueError(
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, but the data set {dataset} "
                    f"of DATASETS.{key} has {len(names)} {class_list(cfg)} in its metadata; set "
                    f"the key to {len(names)}, or name another data set"
                )


def class_names(cfg: CfgNode) -> list[str] | None:
    """The names of the classes that the model learns, by its training data; None if unknown."""
    found = (_class_names(cfg, dataset) for dataset in cfg.DATASETS.TRAIN)
    return next((list(names) for names in found if names is not None), None)


def _class_names(cfg: CfgNode, dataset: str):
    from detectron2.data import MetadataCatalog

    if dataset not in MetadataCatalog.list():
        return None
    return MetadataCatalog.get(dataset).get(class_list(cfg))
