"""The fields of transformers' config.json, and the keys here that mean the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode

from ...errors import short


@dataclass(frozen=True)
class Field:
    """A field, the key below MODEL, and the value of a file that does not have the field."""

    theirs: str
    ours: str
    default: Any


@dataclass(frozen=True)
class Section:
    """A part of config.json: fields, and what must be so because our models have no key for it."""

    fields: tuple[Field, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def read(self, section: Mapping[str, Any], where: str) -> dict[str, Any]:
        """{full key: value}; ValueError where the model is one that we do not have."""
        for name, value in self.fixed.items():
            if section.get(name, value) != value:
                raise ValueError(
                    f"{where}: {name} is {short(section[name])}, but models here have {value} "
                    "only, so these weights cannot be used"
                )
        found = {}
        for one in self.fields:
            value = section.get(one.theirs)
            found[f"MODEL.{one.ours}"] = one.default if value is None else value
        return found

    def write(self, cfg: CfgNode) -> dict[str, Any]:
        """{field: value} of a config."""
        return {one.theirs: value_of(cfg, f"MODEL.{one.ours}") for one in self.fields} | dict(
            self.fixed
        )


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a full key."""
    for name in key.split("."):
        cfg = cfg[name]
    return list(cfg) if isinstance(cfg, tuple) else cfg


_NO_OBJECT = Field("no_object_weight", "MASK_FORMER.NO_OBJECT_WEIGHT", 0.1)
MASK2FORMER = Section(
    (
        _NO_OBJECT,
        Field("use_auxiliary_loss", "MASK_FORMER.DEEP_SUPERVISION", True),
        Field("feature_size", "SEM_SEG_HEAD.CONVS_DIM", 256),
        Field("mask_feature_size", "SEM_SEG_HEAD.MASK_DIM", 256),
        Field("encoder_layers", "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 6),
        Field("common_stride", "SEM_SEG_HEAD.COMMON_STRIDE", 4),
        Field("hidden_dim", "MASK_FORMER.HIDDEN_DIM", 256),
        Field("num_attention_heads", "MASK_FORMER.NHEADS", 8),
        Field("dropout", "MASK_FORMER.DROPOUT", 0.0),
        Field("dim_feedforward", "MASK_FORMER.DIM_FEEDFORWARD", 2048),
        Field("decoder_layers", "MASK_FORMER.DEC_LAYERS", 10),
        Field("pre_norm", "MASK_FORMER.PRE_NORM", False),
        Field("enforce_input_projection", "MASK_FORMER.ENFORCE_INPUT_PROJ", False),
        Field("num_queries", "MASK_FORMER.NUM_OBJECT_QUERIES", 100),
        Field("class_weight", "MASK_FORMER.CLASS_WEIGHT", 2.0),
        Field("mask_weight", "MASK_FORMER.MASK_WEIGHT", 5.0),
        Field("dice_weight", "MASK_FORMER.DICE_WEIGHT", 5.0),
        Field("train_num_points", "MASK_FORMER.TRAIN_NUM_POINTS", 12544),
        Field("oversample_ratio", "MASK_FORMER.OVERSAMPLE_RATIO", 3.0),
        Field("importance_sample_ratio", "MASK_FORMER.IMPORTANCE_SAMPLE_RATIO", 0.75),
    ),
    {"activation_function": "relu", "encoder_feedforward_dim": 1024},
)
MASKFORMER = Section(
    (
        _NO_OBJECT,
        Field("use_auxiliary_loss", "MASK_FORMER.DEEP_SUPERVISION", False),
        Field("fpn_feature_size", "SEM_SEG_HEAD.CONVS_DIM", 256),
        Field("mask_feature_size", "SEM_SEG_HEAD.MASK_DIM", 256),
        Field("cross_entropy_weight", "MASK_FORMER.CLASS_WEIGHT", 1.0),
        Field("mask_weight", "MASK_FORMER.MASK_WEIGHT", 20.0),
        Field("dice_weight", "MASK_FORMER.DICE_WEIGHT", 1.0),
    ),
)
DETR = Section(  # decoder_config of MaskFormer
    (
        Field("d_model", "MASK_FORMER.HIDDEN_DIM", 256),
        Field("decoder_attention_heads", "MASK_FORMER.NHEADS", 8),
        Field("decoder_ffn_dim", "MASK_FORMER.DIM_FEEDFORWARD", 2048),
        Field("decoder_layers", "MASK_FORMER.DEC_LAYERS", 6),
        Field("dropout", "MASK_FORMER.DROPOUT", 0.1),
        Field("num_queries", "MASK_FORMER.NUM_OBJECT_QUERIES", 100),
    ),
    {"model_type": "detr", "activation_function": "relu"},
)
SWIN = Section(
    (
        Field("image_size", "SWIN.PRETRAIN_IMG_SIZE", 224),
        Field("patch_size", "SWIN.PATCH_SIZE", 4),
        Field("embed_dim", "SWIN.EMBED_DIM", 96),
        Field("depths", "SWIN.DEPTHS", [2, 2, 6, 2]),
        Field("num_heads", "SWIN.NUM_HEADS", [3, 6, 12, 24]),
        Field("window_size", "SWIN.WINDOW_SIZE", 7),
        Field("mlp_ratio", "SWIN.MLP_RATIO", 4.0),
        Field("qkv_bias", "SWIN.QKV_BIAS", True),
        Field("hidden_dropout_prob", "SWIN.DROP_RATE", 0.0),
        Field("attention_probs_dropout_prob", "SWIN.ATTN_DROP_RATE", 0.0),
        Field("drop_path_rate", "SWIN.DROP_PATH_RATE", 0.1),
        Field("use_absolute_embeddings", "SWIN.APE", False),
    ),
    {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "num_channels": 3},
)

# What our configs must have for each kind, beside the fields.
SAME = {
    "mask2former": {
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    },
    "maskformer": {
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.MASK_FORMER.PRE_NORM": False,
    },
}  # fmt: skip
SAME_OF_ALL = {
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "INPUT.FORMAT": "RGB",
}
SAME_OF_BACKBONES = {
    "D2SwinTransformer": {
        "MODEL.SWIN.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SWIN.QK_SCALE": None,
        "MODEL.SWIN.PATCH_NORM": True,
    },
    "build_resnet_backbone": {
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.RESNETS.NUM_GROUPS": 1,
        "MODEL.RESNETS.RES5_DILATION": 1,
    },
}
