"""A tiny model of every family of pixel classifiers, and samples for it."""

import torch
from detectron2.modeling import build_model
from support import golden
from support.small import CLASSES, MASKFORMER, WIDTH, make_config, picture

_PIXELS = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
}
_MMSEG = _PIXELS | {
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.AVERAGE_ALL": True,
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
}
_AUXILIARY = {
    "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE": "res4",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CHANNELS": 8,
}
_SEGMENTER = _MMSEG | {
    "MODEL.BACKBONE.NAME": "VisionTransformer",
    "MODEL.VIT.IMAGE_SIZE": 64,
    "MODEL.VIT.EMBED_DIM": 32,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "SegmenterMaskHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["last"],
}
_LINEAR = {"MODEL.SEM_SEG_HEAD.NAME": "SegmenterLinearHead"}
_ESSNET = {
    "MODEL.SEM_SEG_HEAD.NAME": "SegmenterESSNetHead",
    "MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": 3,
    "MODEL.SEM_SEG_HEAD.ESSNET.DIM": 8,
}
_UPERNET = _MMSEG | _AUXILIARY | {"MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead"}
_SEGFORMER = _MMSEG | {
    "MODEL.BACKBONE.NAME": "MixTransformer",
    "MODEL.MIT.EMBED_DIMS": [8, 8, 16, 16],
    "MODEL.MIT.DEPTHS": [1, 1, 1, 1],
    "MODEL.MIT.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.MIT.REDUCTIONS": [4, 2, 2, 1],
    "MODEL.MIT.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "SegFormerHead",
}
FAMILIES = {
    "per pixel": MASKFORMER | _PIXELS | {"MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead"},
    "per pixel plus": MASKFORMER
    | _PIXELS
    | {
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead",
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": CLASSES,
        "MODEL.MASK_FORMER.DROPOUT": 0.0,
    },
    "Segmenter": _SEGMENTER,
    "Segmenter linear": _SEGMENTER | _LINEAR,
    "Segmenter OCE": _SEGMENTER | {"MODEL.VIT.CLASS_EMBEDDING": True},
    "Segmenter ESSNet": _SEGMENTER | _ESSNET,
    "Segmenter EncNet": _SEGMENTER | {"MODEL.SEM_SEG_HEAD.ENCODING.CODES": 4},
    "EncNet": _MMSEG
    | _AUXILIARY
    | {"MODEL.SEM_SEG_HEAD.NAME": "EncHead", "MODEL.SEM_SEG_HEAD.ENCODING.CODES": 4},
    "DeepLabV3": _MMSEG
    | _AUXILIARY
    | {
        "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
        "MODEL.RESNETS.RES4_DILATION": 2,
        "MODEL.RESNETS.RES5_DILATION": 4,
        "MODEL.SEM_SEG_HEAD.NAME": "ASPPHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
        "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [2, 4],
    },
    "UPerNet Swin": _UPERNET
    | {
        "MODEL.BACKBONE.NAME": "D2SwinTransformer",
        "MODEL.SWIN.EMBED_DIM": 8,
        "MODEL.SWIN.DEPTHS": [2, 1, 1, 1],
        "MODEL.SWIN.NUM_HEADS": [1, 1, 2, 2],
        "MODEL.SWIN.WINDOW_SIZE": 3,
        "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    },
    "UPerNet BEiT": _UPERNET
    | {
        "MODEL.BACKBONE.NAME": "BEiT",
        "MODEL.BEIT.IMG_SIZE": [96, 96],
        "MODEL.BEIT.EMBED_DIM": 16,
        "MODEL.BEIT.DEPTH": 4,
        "MODEL.BEIT.NUM_HEADS": 2,
        "MODEL.BEIT.DROP_PATH_RATE": 0.0,
        "MODEL.BEIT.OUT_BLOCKS": [1, 2, 3, 4],
        "MODEL.BEIT.NORM": "BN",
    },
    "SegFormer": _SEGFORMER,
    "SegFormer of mmsegmentation": _SEGFORMER | {"MODEL.SEM_SEG_HEAD.NAME": "SegFormerConvHead"},
}
REFINING = ("Segmenter", "Segmenter OCE", "Segmenter ESSNet", "Segmenter EncNet")
TOPK = 4
ORACLE = {"MODEL.RANKSEG.USE_GT": True}


def rankseg(family, **more):
    """The keys of RankSeg as it is published for the family; `more` are of MODEL.RANKSEG."""
    refines = family in REFINING
    keys = {
        "FLAG": True,
        "TOPK": TOPK,
        "LOSS_WEIGHT": 10,
        "HIDDEN_DIM": WIDTH,
        "HEAD": "block" if refines else "separable",
        "POOL": 2,
        "SHARE_EMBEDDING": not refines,
    }
    keys = {f"MODEL.RANKSEG.{name}": value for name, value in (keys | more).items()}
    return {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": refines} | keys


def variants(families=FAMILIES):
    """Keys by name: each family as it is, and with RankSeg."""
    plain = {name: FAMILIES[name] for name in families}
    ranked = {f"{name}, RankSeg": FAMILIES[name] | rankseg(name) for name in families}
    return plain | ranked


def make_model(*options):
    """The model of these keys, with weights that make its class logits differ."""
    torch.manual_seed(0)
    model = build_model(make_config(*options))
    fill(model)
    return model


@torch.no_grad()
def fill(model):
    golden.fill(model)
    if hasattr(model, "ml_norm"):
        model.ml_norm.weight *= 4


def sample(number=0, size=(64, 96), classes=CLASSES, **more):
    """A picture, and its brightness as labels."""
    image = picture(number, size)
    return {"image": image, "sem_seg": (image[0] * classes // 256).long(), **more}
