"""mmsegmentation's DeepLabV3, RankSeg's on it, and mmcv's ImageNet weights of their backbone."""

from .mmsegmentation import AUXILIARY, CLASSIFIER, RANKED_CLASSIFIER, conv_rules, resnet_rules
from .table import Rule, Table

_ASPP: tuple[Rule, ...] = (
    *resnet_rules("backbone.", "backbone."),
    *conv_rules("sem_seg_head.pyramid.pool", "decode_head.image_pool.1"),
    *conv_rules("sem_seg_head.pyramid.branches.{i}", "decode_head.aspp_modules.{i}"),
    *conv_rules("sem_seg_head.bottleneck", "decode_head.bottleneck"),
    *AUXILIARY,
)
_MARK = "decode_head.image_pool.1.conv.weight"

DEEPLAB = Table(
    "mmsegmentation",
    marks=(_MARK, "backbone.stem.0.weight", "decode_head.conv_seg.weight"),
    rules=_ASPP + CLASSIFIER,
)
DEEPLAB_RANKSEG = Table(
    "rankseg",
    marks=(_MARK, "backbone.stem.0.weight", "decode_head.cls_emb"),
    rules=_ASPP + RANKED_CLASSIFIER,
)
RESNET_V1C = Table(
    "mmcv",
    marks=("stem.0.weight", "layer4.0.conv3.weight"),
    rules=resnet_rules("backbone.", ""),
    unused=("fc.{part}",),
)
TABLES = (DEEPLAB_RANKSEG, DEEPLAB, RESNET_V1C)
