"""What several models of mmsegmentation, and RankSeg's models in it, have in common."""

from torch import Tensor

from .table import Rule


def conv_rules(ours: str, theirs: str, norm: str = "bn") -> tuple[Rule, ...]:
    """A convolution and its batch norm, which they call `norm`."""
    return (
        Rule(f"{ours}.weight", f"{theirs}.conv.weight"),
        Rule(f"{ours}.norm.{{part}}", f"{theirs}.{norm}.{{part}}"),
    )


def resnet_rules(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A ResNet with a stem of three convolutions (V1c), by the prefixes of its names."""
    rules = []
    for number, (conv, norm) in enumerate(((0, 1), (3, 4), (6, 7)), start=1):
        rules += [
            Rule(f"{ours}stem.conv{number}.weight", f"{theirs}stem.{conv}.weight"),
            Rule(f"{ours}stem.conv{number}.norm.{{part}}", f"{theirs}stem.{norm}.{{part}}"),
        ]
    return (*rules, *resnet_stages(ours, theirs))


def resnet_stages(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The four stages, which they call as torchvision does."""
    rules = []
    for stage in (1, 2, 3, 4):
        mine, its = f"{ours}res{stage + 1}.{{block}}", f"{theirs}layer{stage}.{{block}}"
        rules += [
            Rule(f"{mine}.shortcut.weight", f"{its}.downsample.0.weight"),
            Rule(f"{mine}.shortcut.norm.{{part}}", f"{its}.downsample.1.{{part}}"),
            Rule(f"{mine}.conv{{i}}.weight", f"{its}.conv{{i}}.weight"),
            Rule(f"{mine}.conv{{i}}.norm.{{part}}", f"{its}.bn{{i}}.{{part}}"),
        ]
    return tuple(rules)


AUXILIARY = (
    *conv_rules("sem_seg_head.auxiliary.conv", "auxiliary_head.convs.0"),
    Rule("sem_seg_head.auxiliary.predictor.{part}", "auxiliary_head.conv_seg.{part}"),
)
CLASSIFIER = (Rule("sem_seg_head.predictor.{part}", "decode_head.conv_seg.{part}"),)


def filters(embedding: Tensor) -> Tensor:
    """Class embeddings (1, C, D) as a 1 x 1 convolution (C, D, 1, 1)."""
    return embedding[0, :, :, None, None]


def embeddings(weight: Tensor) -> Tensor:
    """(C, D, 1, 1) -> (1, C, D)."""
    return weight.flatten(1)[None]


def without_last(weight: Tensor) -> Tensor:
    """A weight without its last dimension, which is 1."""
    return weight[..., 0]


def with_last(weight: Tensor) -> Tensor:
    return weight[..., None]


# RankSeg on a convolutional head: class embeddings, the multi-label head "separable", and the norm.
_HEAD, _THEIR_HEAD = "ml_head", "decode_head.img_cls_head"
_DEPTHWISE = f"{_THEIR_HEAD}.proj_dec.depthwise_conv.conv"
_POINTWISE = f"{_THEIR_HEAD}.proj_dec.pointwise_conv.conv"
RANKED_CLASSIFIER = (
    Rule("sem_seg_head.predictor.weight", "decode_head.cls_emb", filters, embeddings),
    Rule(
        "sem_seg_head.predictor.bias", "decode_head.cls_bias_emb",
        lambda bias: bias[0], lambda bias: bias[None],
    ),
    Rule("ml_norm.{part}", "decode_head.norm.{part}"),
    Rule(f"{_HEAD}.proj_dec.depthwise.weight", f"{_DEPTHWISE}.weight", without_last, with_last),
    Rule(f"{_HEAD}.proj_dec.depthwise.bias", f"{_DEPTHWISE}.bias"),
    Rule(
        f"{_HEAD}.proj_dec.pointwise.weight", f"{_POINTWISE}.weight",
        lambda weight: weight.flatten(1), lambda weight: weight[..., None, None],
    ),
    Rule(f"{_HEAD}.proj_dec.pointwise.bias", f"{_POINTWISE}.bias"),
    Rule(f"{_HEAD}.cls_emb", f"{_THEIR_HEAD}.cls_emb"),
    Rule(f"{_HEAD}.{{module}}.{{part}}", f"{_THEIR_HEAD}.{{module}}.{{part}}"),
    Rule(f"{_HEAD}.block.{{module}}.{{part}}", f"{_THEIR_HEAD}.block.{{module}}.{{part}}"),
    Rule(
        f"{_HEAD}.block.{{module}}.{{layer}}.{{part}}",
        f"{_THEIR_HEAD}.block.{{module}}.{{layer}}.{{part}}",
    ),
)  # fmt: skip
