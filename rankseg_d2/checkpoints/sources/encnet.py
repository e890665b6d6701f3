"""mmsegmentation's EncNet."""

from .mmsegmentation import AUXILIARY, CLASSIFIER, conv_rules, resnet_rules
from .table import Rule, Table

_OURS, _THEIRS = "sem_seg_head.encoding", "decode_head.enc_module"
ENC_HEAD: tuple[Rule, ...] = (
    *conv_rules(f"{_OURS}.conv", "decode_head.bottleneck"),
    *conv_rules(f"{_OURS}.project", f"{_THEIRS}.encoding_project"),
    Rule(f"{_OURS}.codebook.words", f"{_THEIRS}.encoding.0.codewords"),
    Rule(f"{_OURS}.codebook.scale", f"{_THEIRS}.encoding.0.scale"),
    Rule(f"{_OURS}.code_norm.{{part}}", f"{_THEIRS}.encoding.1.{{part}}"),
    Rule(f"{_OURS}.gate.{{part}}", f"{_THEIRS}.fc.0.{{part}}"),
    Rule(f"{_OURS}.presence.{{part}}", "decode_head.se_layer.{part}"),
    *conv_rules("sem_seg_head.lateral_convs.{i}", "decode_head.lateral_convs.{i}"),
    *conv_rules("sem_seg_head.fuse_conv", "decode_head.fusion"),
    *CLASSIFIER,
)

ENCNET = Table(
    "mmsegmentation",
    marks=("decode_head.enc_module.encoding.0.codewords", "backbone.stem.0.weight"),
    rules=(*resnet_rules("backbone.", "backbone."), *ENC_HEAD, *AUXILIARY),
)
TABLES = (ENCNET,)
