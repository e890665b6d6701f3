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
# unchanged. Keys that upstream does not have are marked "ours". A key is explained by the comment
# on its line, or else above it; `rankseg-d2 configs --keys` and docs/keys.md show these comments.
# config_ranges.py lists the values that each key may have.
KEYS = {
    "MODEL": {
        "DTYPE": "float32",  # ours: of inference: or bfloat16, float16; SOLVER.AMP is for training
        "RANKSEG": {
            "FLAG": False,  # rank the categories first, then classify among the first TOPK
            # kappa, the number of categories kept: 1 to NUM_CLASSES; 0: the oracle keeps all
            "TOPK": 0,
            "USE_GT": False,  # the oracle: rank by the labels, to measure the ceiling
            "LOSS_WEIGHT": 0,  # weight of the multi-label loss; 10 in the paper
            "HIDDEN_DIM": 512,  # width of the multi-label head
            "SHARE_EMBEDDING": False,  # True: the class tokens are the classifier's weights
            # ours: the multi-label head: encoder, decoder, pooling, or for thousands of categories
            # group; as published for pixel classifiers: separable, query2label, conv_pooling, and
            # for Segmenter block
            "HEAD": "encoder",
            # ours: tokens of the head group, at most NUM_CLASSES; 0: 100, if there are as many
            "GROUPS": 0,
            "POOL": 0,  # ours: pixel classifiers: the head reads a map of so many cells squared
            "LAYER": 3,  # ours: it reads the queries after this decoder layer, counted from 1
            # ours: the multi-label loss: asymmetric, balanced_asymmetric (by the categories'
            # frequencies), shifted_bce (without focusing), bce, ranking or two_way
            "LOSS": "asymmetric",
            # ours: above 0: of the TOPK, keep only categories more probable than this
            "THRESHOLD": 0.0,
            # ours: True: training keeps the true categories, whatever their scores
            "KEEP_TRUE": False,
            # ours: with KEEP_TRUE: of the places that true categories leave, this share is filled
            # with random categories, and the rest with the best ones
            "RANDOM_SHARE": 0.0,
            # ours: kappa of the training as [iteration, kappa] pairs, on lines between them: [] is
            # TOPK, which inference always uses
            "TOPK_SCHEDULE": [],
            # ours: categories are ranked by the multi-label head, by masks (the best probability
            # that a region or pixel gives, which needs no training and no head), or by both
            "SCORES": "head",
            "SCORE_WEIGHTS": [1.0, 1.0],  # ours: of head and masks in the sum of their logits
            "NORM": True,  # ours: with FLAG: classify with the rank-adaptive temperature
            # ours: so many times the log probability of a category is added to its class logit
            "GATE": 0.0,
            "FULL_SCORES": False,  # ours: True: semantic results have all C score maps, not TOPK
        },
        "MASK_FORMER": {
            "DEEP_SUPERVISION": True,  # losses after every decoder layer, not only the last
            "NO_OBJECT_WEIGHT": 0.1,  # of the no-object class in the class loss
            "CLASS_WEIGHT": 1.0,  # of the class loss; this and the next two weigh the matching too
            "MASK_WEIGHT": 20.0,  # of the mask loss: cross-entropy of points, or focal loss
            "DICE_WEIGHT": 1.0,  # of the dice loss of masks
            # Mask2Former's, for clips also with Video in front; StandardTransformerDecoder is
            # MaskFormer's
            "TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
            "TRANSFORMER_IN_FEATURE": "res5",  # in Mask2Former multi_scale_pixel_decoder
            "NUM_OBJECT_QUERIES": 100,  # most regions that an image or clip can have
            "HIDDEN_DIM": 256,  # width of the queries
            "NHEADS": 8,  # heads of attention, in the pixel decoder too
            "DIM_FEEDFORWARD": 2048,  # width inside the feed-forward layers
            "ENC_LAYERS": 0,  # encoder layers before the decoder
            "DEC_LAYERS": 6,  # in Mask2Former one more than layers: 10 means 9 layers
            "DROPOUT": 0.1,  # of the pixel decoder and of MaskFormer's transformer decoder
            "PRE_NORM": False,  # True: norms before attention and feed-forward, not after
            "ENFORCE_INPUT_PROJ": False,  # True: project the input even if its width fits
            # ours: gradient checkpointing in pixel and transformer decoder: less memory, more time
            "USE_CHECKPOINT": False,
            # images are padded to a multiple of this; -1: of what the backbone needs
            "SIZE_DIVISIBILITY": 32,
            "TRAIN_NUM_POINTS": 12544,  # Mask2Former's mask losses are computed at these points
            "OVERSAMPLE_RATIO": 3.0,  # so many times more are drawn, to choose uncertain ones from
            "IMPORTANCE_SAMPLE_RATIO": 0.75,  # the share of uncertain points; others are random
            # ours: "points" (Mask2Former), "dense" (MaskFormer: all pixels), or "auto": "points" if
            # TRANSFORMER_IN_FEATURE is multi_scale_pixel_decoder, else "dense"
            "MASK_LOSS": "auto",
            "TEST": {
                "SEMANTIC_ON": True,  # results are label maps
                # ours: give the scores of the categories at each pixel beside the label map; False:
                # less time and memory, and RANKSEG.FULL_SCORES has no effect
                "SEMANTIC_SCORES": True,
                "INSTANCE_ON": False,  # results are objects, which may overlap
                "PANOPTIC_ON": False,  # results are segments, which do not overlap
                # ours: results are objects and stuff of one class, which do not overlap
                "ENTITY_ON": False,
                "PARSING_ON": False,  # ours: results are persons, each with its parts
                "OBJECT_MASK_THRESHOLD": 0.0,  # panoptic: drop queries with a lower score
                "OVERLAP_THRESHOLD": 0.0,  # panoptic: drop segments less visible than this share
                # semantic; True: masks are resized before the sigmoid, not after
                "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,
                "SCORE_THRESHOLD": 0.0,  # ours: drop instances with a lower score
                # ours: entities: multiply scores by the mean probability inside the final mask
                "MASK_RESCORE": False,
                "DETECTIONS_PER_VIDEO": 10,  # ours: most instances per clip
            },
        },
        "SEM_SEG_HEAD": {
            # MaskFormer's, or its TransformerEncoderPixelDecoder; MSDeformAttnPixelDecoder is
            # Mask2Former's
            "PIXEL_DECODER_NAME": "BasePixelDecoder",
            # ours: gradient checkpointing of its convolutions with a norm, of Segmenter's blocks
            # and of those of a multi-label head
            "USE_CHECKPOINT": False,
            "MASK_DIM": 256,  # channels of the per-pixel embedding
            "TRANSFORMER_ENC_LAYERS": 0,  # encoder layers of the pixel decoder
            # the backbone's features that the encoder of MSDeformAttnPixelDecoder takes
            "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
            "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,  # not read, as upstream: NHEADS is
            "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,  # points for each head and level
            # ours: width inside its feed-forward layers
            "DEFORMABLE_TRANSFORMER_ENCODER_DIM_FEEDFORWARD": 1024,
            "USE_LAYERNORM": False,  # with RankSeg: cosine classifier, rank-adaptive temperature
            # ours: True: a pixel classifier's loss is divided by all pixels, ignored ones included
            "AVERAGE_ALL": False,
            "STRETCH": False,  # ours: True: maps are resized to the image as if it had no padding
            # ours: before the classifier of a pixel head, or in the blocks of Segmenter's decoder
            "DROPOUT": 0.1,
            "NUM_BLOCKS": 2,  # ours: SegmenterMaskHead: transformer blocks over pixels and classes
            "ESSNET": {  # ours: of SegmenterESSNetHead
                "NEIGHBOURS": 64,  # ours: so many classes compete for each pixel
                "DIM": 64,  # ours: width in which pixels and classes are compared
            },
            "AUXILIARY": {  # ours: a head on an earlier level, for training alone
                "IN_FEATURE": "",  # ours: the level, such as res4; none: no such head
                "CHANNELS": 256,  # ours: of its convolution
                "WEIGHT": 0.4,  # ours: of its loss
            },
            "ENCODING": {  # ours: EncNet's, of the pixels that a head reads
                "CODES": 0,  # ours: code words, such as 64; 0: no encoding
                "WEIGHT": 0.2,  # ours: of the loss of which classes are present
            },
            "LOSS_TYPE": "hard_pixel_mining",  # not read: DeepLab's, in upstream's yaml files
            "PROJECT_FEATURES": ["res2"],  # not read: DeepLab's, in upstream's yaml files
            "PROJECT_CHANNELS": [48],  # not read: DeepLab's, in upstream's yaml files
            "ASPP_CHANNELS": 256,  # not read: DeepLab's, in upstream's yaml files
            "ASPP_DILATIONS": [6, 12, 18],  # of the 3 x 3 convolutions of ASPPHead
            "ASPP_DROPOUT": 0.1,  # not read: DeepLab's, in upstream's yaml files
            "USE_DEPTHWISE_SEPARABLE_CONV": False,  # not read: DeepLab's, in upstream's yaml files
        },
        "BACKBONE": {
            # ours: gradient checkpointing of the blocks of any backbone: less memory, more time
            "USE_CHECKPOINT": False,
        },
        "RESNETS": {  # these are read by build_resnet_deeplab_backbone (R50c, R101c) only
            "STEM_TYPE": "deeplab",  # three convolutions, as in R50c and R101c; basic: one of 7 x 7
            "RES4_DILATION": 1,  # 2: res4 keeps the size of res3
            "RES5_MULTI_GRID": [1, 2, 4],  # factors of the dilation, for each block of res5
            # ours: True: the first block of a dilated stage has half of its dilation
            "CONTRACT_DILATION": False,
        },
        "SWIN": {  # of D2SwinTransformer; the defaults are Swin-T's
            "PRETRAIN_IMG_SIZE": 224,  # image size of the absolute position embedding, if APE
            "PATCH_SIZE": 4,  # pixels of a side of a patch
            "EMBED_DIM": 96,  # channels of res2; each later stage has twice as many
            "DEPTHS": [2, 2, 6, 2],  # blocks of each stage
            "NUM_HEADS": [3, 6, 12, 24],  # heads of attention, of each stage
            "WINDOW_SIZE": 7,  # patches of a side of a window
            "MLP_RATIO": 4.0,  # width inside the feed-forward layers, relative to the channels
            "QKV_BIAS": True,  # query, key and value have a bias
            "QK_SCALE": None,  # None: 1 / sqrt(channels of a head)
            "DROP_RATE": 0.0,  # dropout of features
            "ATTN_DROP_RATE": 0.0,  # dropout of attention weights
            "DROP_PATH_RATE": 0.3,  # of the last block, which is dropped so often; rises from 0
            "APE": False,  # absolute position embedding
            "PATCH_NORM": True,  # a norm after the patch embedding
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],  # stages whose features are results
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "SEMASK": {  # ours: of D2SeMaskSwinTransformer, beside MODEL.SWIN
            "WINDOW_SIZE": 7,  # ours: tokens of a side of the windows of the semantic attention
            # ours: stages whose semantic attention is over the whole map; its authors' models of
            # other than 150 classes have none, []
            "GLOBAL_STAGES": ["res5"],
            "WEIGHT": 0.4,  # ours: of the loss of the classes that the stages say
        },
        "MIT": {  # ours: of MixTransformer, SegFormer's backbone; the defaults are MiT-B0's
            "EMBED_DIMS": [32, 64, 160, 256],  # ours: channels of each stage
            "DEPTHS": [2, 2, 2, 2],  # ours: blocks of each stage
            "NUM_HEADS": [1, 2, 5, 8],  # ours: heads of attention, of each stage
            # ours: the map of keys and values is so many times smaller, in each stage
            "REDUCTIONS": [8, 4, 2, 1],
            "MLP_RATIO": 4.0,  # ours: width inside the feed-forward layers
            # ours: epsilon of its LayerNorms; 1e-5 for HuggingFace's and sithu31296's checkpoints.
            # NVlabs' have 1e-5 in patch embeddings and on reduced keys, and 1e-6 elsewhere
            "NORM_EPS": 1e-6,
            "DROP_PATH_RATE": 0.1,  # ours: of the last block, which is dropped so often
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],  # ours: stages that are results
            "USE_CHECKPOINT": False,  # ours: gradient checkpointing: less memory, more time
        },
        "VIT": {  # ours: of VisionTransformer; the defaults are ViT-B/16's
            "IMAGE_SIZE": 512,  # side of the images that the position embedding is made for
            "PATCH_SIZE": 16,  # pixels of a side of a patch
            "PATCH_BIAS": True,  # the patch embedding has a bias; not in mmsegmentation 1
            "EMBED_DIM": 768,  # channels
            "DEPTH": 12,  # blocks
            "NUM_HEADS": 12,  # heads of attention
            "MLP_RATIO": 4.0,  # width inside the feed-forward layers, relative to the channels
            "NORM_EPS": 1e-6,  # of the norms; 1e-5 in Segmenter's own repository
            "DROP_RATE": 0.0,  # dropout of features and attention weights
            "DROP_PATH_RATE": 0.1,  # of the last block, which is dropped so often; rises from 0
            # first value of the factors of attention and feed-forward; 0.0: none
            "LAYER_SCALE": 0.0,
            "REGISTERS": 0,  # tokens beside the class token that stand for nothing, as in DINOv2
            "CLASS_POSITION": True,  # False: the class token has no position; timm's DINOv2, EoMT
            # of the position embedding: bicubic, or bilinear as in Segmenter's own repository
            "INTERPOLATION": "bicubic",
            # last: the last block's output after the norm; block1, block2, ...: other blocks'
            "OUT_FEATURES": ["last"],
            # True: class embeddings enter the backbone before its last block (OCE)
            "CLASS_EMBEDDING": False,
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "EOMT": {  # ours
            "BLOCKS": 4,  # of a ViT, the number of last blocks that have the queries
            # for each of them the iteration until which all queries attend only within their masks,
            # in training; []: never
            "MASK_START": [],
            # the iteration from which on none does, as at inference; fewer and fewer in between
            "MASK_END": [],
        },
        "CONDINST": {  # ours: of CondInst; MODEL.SEM_SEG_HEAD.CONVS_DIM is its width
            "NUM_CONVS": 4,  # of each of the towers for classes and boxes; that for kernels has 3
            "MASK_DIM": 8,  # channels of the mask features, and of the layers by dynamic kernels
            "MASK_WIDTH": 128,  # channels inside the mask branch
            "CENTER_RADIUS": 1.5,  # an object is learnt so many strides around its centre
            # a level learns objects whose farthest side is between two of these pixels
            "SIZES": [64, 128, 256, 512],
            # masks are learnt at so many random locations of a batch, at most
            "MAX_PROPOSALS": 500,
            # True: static layers replace dynamic ones, in six more losses of the masks
            "DYNAMIC_BANK": True,
            "OVERLAP_WEIGHT": 0.5,  # of the loss against masks that overlap; 0: none
            "SCORE_THRESHOLD": 0.05,  # locations with a lower class probability give nothing
            "CANDIDATES": 1000,  # the best so many locations take part in the suppression of boxes
            "NMS_THRESHOLD": 0.6,  # of two boxes with a higher IoU only the better one stays
        },
        "BEIT": {  # ours: of BEiT; the defaults are BEiT-B's
            "IMG_SIZE": [512, 512],  # height and width of the largest images; windows for larger
            "PATCH_SIZE": 16,  # pixels of a side of a patch
            "EMBED_DIM": 768,  # channels
            "DEPTH": 12,  # blocks
            "NUM_HEADS": 12,  # heads of attention
            "MLP_RATIO": 4.0,  # width inside the feed-forward layers, relative to the channels
            "LAYER_SCALE": 0.1,  # first value of the factors of attention and feed-forward
            "DROP_PATH_RATE": 0.1,  # of the last block, which is dropped so often; rises from 0
            "OUT_BLOCKS": [4, 6, 8, 12],  # the blocks that give res2 to res5, counted from 1
            "NORM": "SyncBN",  # of the layers that enlarge res2
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "CSWIN": {  # ours: of CSWinTransformer; the defaults are CSWin-T's
            "EMBED_DIM": 64,  # channels of res2; each later stage has twice as many
            "DEPTHS": [1, 2, 21, 1],  # blocks of each stage
            "NUM_HEADS": [2, 4, 8, 16],  # heads of attention, of each stage
            # of the stripes within which the first three stages attend, in tokens
            "STRIPE_WIDTHS": [1, 2, 7],
            "MLP_RATIO": 4.0,  # width inside the feed-forward layers, relative to the channels
            "DROP_PATH_RATE": 0.3,  # of the last block, which is dropped so often; rises from 0
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],  # stages whose features are results
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "VOLO": {  # ours: of VOLO; the defaults are VOLO-D1's
            "IMAGE_SIZE": 512,  # side of the images that the position embedding is made for
            "EMBED_DIMS": [192, 384],  # channels of outlookers, and of the transformer stages
            "DEPTHS": [4, 4, 8, 2],  # outlookers, and blocks of the three transformer stages
            "NUM_HEADS": [6, 12],  # heads of attention of outlookers, and of the others
            "STEM_DIM": 64,  # channels of the three convolutions before the patches
            "MLP_RATIO": 3.0,  # width inside the feed-forward layers, relative to the channels
            "NORM": "SyncBN",  # of these three convolutions
            "DROP_PATH_RATE": 0.1,  # of the last block, which is dropped so often; rises from 0
            # levels that are results; res2 is enlarged from stride 8, res5 pooled from stride 16
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "USE_CHECKPOINT": False,  # gradient checkpointing: less memory, more time
        },
        "VIT_ADAPTER": {  # ours: of BEiTAdapter and ViTAdapter, beside MODEL.BEIT and MODEL.VIT
            "CONV_CHANNELS": 64,  # ours: of the finest convolutions beside the ViT
            "HEADS": 6,  # ours: heads of the deformable attention between both
            "POINTS": 4,  # ours: points that each head reads on each level
            "VALUE_RATIO": 1.0,  # ours: channels that are read, relative to the ViT's
            "FFN_RATIO": 0.25,  # ours: width inside the feed-forward layers, relative to the ViT's
            "NORM": "SyncBN",  # ours: of the convolutions and of the levels
        },
        "TIMM": {  # ours
            "NAME": "resnet18",  # a model of timm, for MODEL.BACKBONE.NAME TimmBackbone
            # package: weights of an installed package; hub or True: timm downloads its own; None
            # or False: random weights
            "PRETRAINED": None,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],  # of strides 4, 8, 16, 32
            "DROP_PATH_RATE": 0.0,  # how often blocks are dropped in training
        },
    },
    "INPUT": {
        "DATASET_MAPPER_NAME": "mask_former_semantic",  # docs/data.md lists the mappers
        "COLOR_AUG_SSD": False,  # SSD's color augmentation
        "SIZE_DIVISIBILITY": -1,  # training crops are padded to a multiple of this; -1: no padding
        # crop again if one category covers more than this share of the crop
        "CROP": {"SINGLE_CATEGORY_MAX_AREA": 1.0},
        "IMAGE_SIZE": 1024,  # side of the square of large-scale jitter (mappers ..._lsj)
        "MIN_SCALE": 0.1,  # least scale of large-scale jitter
        "MAX_SCALE": 2.0,  # largest scale of large-scale jitter
        # ours: False: images become squares: in training of IMAGE_SIZE times a scale from MIN_SCALE
        # to MAX_SCALE, in a test of MIN_SIZE_TEST
        "KEEP_RATIO": True,
        "ROTATION": {  # ours: of training images
            "DEGREES": 0.0,  # at most so many to each side; 0: no image is rotated
            "PROBABILITY": 0.6,  # the share of the images that are rotated
        },
        "SAMPLING_FRAME_NUM": 2,  # frames of a training clip
        "SAMPLING_FRAME_RANGE": 20,  # other frames are at most this far from the reference frame
        "SAMPLING_FRAME_SHUFFLE": False,  # True: frames of a clip in random order
        "SAMPLING_RANDOM": True,  # False: frames that are SAMPLING_INTERVAL apart
        "SAMPLING_INTERVAL": 5,  # frames from one of a clip to the next, without SAMPLING_RANDOM
        "AUGMENTATIONS": [],  # of clips: brightness, contrast, saturation, rotation
        "CORRUPT": "raise",  # ours: or skip: warn about unreadable training files and go on
        "KEEP_EMPTY": False,  # ours: True: objects outside the crop stay, with empty masks
    },
    # ours: yaml files of own data sets (docs/own_data.md). They are registered and set TRAIN and
    # TEST. NUM_CLASSES and IGNORE_VALUE follow every registered data set.
    "DATASETS": {"FILES": ()},
    "SOLVER": {
        "OPTIMIZER": "ADAMW",  # or SGD
        "BACKBONE_MULTIPLIER": 0.1,  # of the learning rate, for the backbone
        # ours: of the learning rate of a backbone parameter, once for each layer above its own
        "LAYER_DECAY": 1.0,
        "MLHEAD_MULTIPLIER": 1.0,  # of the learning rate, for the multi-label head
        "WEIGHT_DECAY_EMBED": 0.0,  # weight decay of embeddings
        "POLY_LR_POWER": 0.9,  # of WarmupPolyLR
        "POLY_LR_CONSTANT_ENDING": 0.0,  # the rate stays above this share of its base
        "AMP": {"DTYPE": "fp16"},  # ours: fp16 or bf16; needs SOLVER.AMP.ENABLED True
        # ours: above 0: evaluations and checkpoints have a moving average of the weights, of which
        # a step keeps this share, such as 0.999 (docs/training.md)
        "EMA": {"DECAY": 0.0},
        "ACCUMULATION_STEPS": 1,  # ours: run IMS_PER_BATCH images in this many equal parts
        # ours: True, or IMS_PER_BATCH auto: in as few equal parts as fit into memory
        "FIT_MEMORY": False,
        "KEEP_CHECKPOINTS": 2,  # ours: the newest so many, beside the best and final one; 0: all
        # ours: BASE_LR is for a batch of this size and scales with IMS_PER_BATCH; 0: no scaling
        "REFERENCE_BATCH_SIZE": 0,
        "MLHEAD_GUARD": {  # ours
            "ENABLED": False,  # True: lower the multi-label head's rate when METRIC falls
            "METRIC": "multilabel/mAP",  # a metric of the evaluation, higher is better
            "DROP": 0.5,  # it has fallen if it is more than this below its best value
            "FACTOR": 0.1,  # the rate is multiplied by this
        },
    },
    "TEST": {  # ours
        "PICTURES": 8,  # images or frames in sheet.png, with ground truth, prediction and ranking
        "SAVE_PREDICTIONS": False,  # True: evaluators also write predictions, in COCO's formats
        "BEST": {
            # such as sem_seg/mIoU: the checkpoint with its best value is model_best.pth; "": none
            "METRIC": "",
            "MODE": "max",  # or min, if a lower METRIC is better
        },
        "SLIDING_WINDOW": {
            "ENABLED": False,  # True: semantic results from windows of the image, not all of it
            "SIZE": [512, 512],  # height and width of a window, in pixels of the resized image
            "STRIDE": [341, 341],  # from one window to the next, down and to the right
        },
        "VIDEO": {  # whole videos in bounded memory (docs/video.md)
            "WINDOW": 0,  # frames of a window of a video; 0: the whole video is one window
            "OVERLAP": 4,  # frames that neighbouring windows share
            "RANKING": "running",  # or two_pass: rank all windows first, then segment
            "LINK_THRESHOLD": 0.5,  # least similarity at which objects of two windows are linked
            "LINK_PATIENCE": 3,  # a track is closed if more windows than this have no match
        },
    },
    "LOGGERS": [],  # ours: of wandb, mlflow: where metrics go beside OUTPUT_DIR
    "LOG_OUTPUT": None,  # not read: in upstream's yaml files
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
    _register_drawn(cfg)
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


def _register_drawn(cfg: CfgNode) -> None:
    """Register the built-in data sets that DATASETS names; their names give the size."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if any(str(name).startswith(("shapes", "stickers")) for name in names):
        from .data.datasets import register_named

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
