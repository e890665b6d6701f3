"""SegFormer in mmsegmentation, transformers, and NVlabs' and sithu31296's repositories."""

from collections.abc import Iterator

from torch import Tensor

from .table import Rule, Table

# What follows the name of a block in each, beside ours: a weight and a bias.
_BLOCK = {
    "norm1": ("norm1", "layer_norm_1", "norm1"),
    "attn.proj": ("attn.attn.out_proj", "attention.output.dense", "attn.proj"),
    "attn.reduce": ("attn.sr", "attention.self.sr", "attn.sr"),
    "attn.norm": ("attn.norm", "attention.self.layer_norm", "attn.norm"),
    "norm2": ("norm2", "layer_norm_2", "norm2"),
    "mlp.dwconv": ("ffn.layers.1", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
}
_LINEAR = {
    "mlp.fc1": ("ffn.layers.0", "mlp.dense1", "mlp.fc1"),
    "mlp.fc2": ("ffn.layers.4", "mlp.dense2", "mlp.fc2"),
}
_STAGE = "backbone.stages.{s}"
_HEAD = "sem_seg_head"
_STAGES = range(4)


def _flat(x: Tensor) -> Tensor:
    """(out, in, 1, 1) -> (out, in)."""
    return x.flatten(1)


def _as_conv(x: Tensor) -> Tensor:
    """(out, in) -> (out, in, 1, 1)."""
    return x[..., None, None]


def _affine(ours: str, theirs: str) -> Iterator[Rule]:
    """A weight and a bias."""
    for kind in ("weight", "bias"):
        yield Rule(f"{ours}.{kind}", f"{theirs}.{kind}")


def _batch_norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield from _affine(ours, theirs)
    for kind in ("running_mean", "running_var", "num_batches_tracked"):
        yield Rule(f"{ours}.{kind}", f"{theirs}.{kind}")


def _mmseg_rules() -> Iterator[Rule]:
    block, theirs = f"{_STAGE}.blocks.{{b}}", "backbone.layers.{s}.1.{b}"
    yield from _affine(f"{_STAGE}.patch_embed.proj", "backbone.layers.{s}.0.projection")
    yield from _affine(f"{_STAGE}.patch_embed.norm", "backbone.layers.{s}.0.norm")
    for ours, (name, _, _) in _BLOCK.items():
        yield from _affine(f"{block}.{ours}", f"{theirs}.{name}")
    for kind in ("weight", "bias"):
        yield Rule(f"{block}.attn.qkv.{kind}", f"{theirs}.attn.attn.in_proj_{kind}")
    for ours, (name, _, _) in _LINEAR.items():
        yield Rule(f"{block}.{ours}.weight", f"{theirs}.{name}.weight", _flat, _as_conv)
        yield Rule(f"{block}.{ours}.bias", f"{theirs}.{name}.bias")
    yield from _affine(f"{_STAGE}.norm", "backbone.layers.{s}.2")
    level, their_level = f"{_HEAD}.levels.{{s}}", "decode_head.convs.{s}"
    yield Rule(f"{level}.weight", f"{their_level}.conv.weight")
    yield from _batch_norm(f"{level}.norm", f"{their_level}.bn")
    yield Rule(f"{_HEAD}.fuse.weight", "decode_head.fusion_conv.conv.weight")
    yield from _batch_norm(f"{_HEAD}.fuse.norm", "decode_head.fusion_conv.bn")
    yield from _affine(f"{_HEAD}.predictor", "decode_head.conv_seg")


def _transformers_rules() -> Iterator[Rule]:
    root = "segformer.encoder"
    block, theirs = f"{_STAGE}.blocks.{{b}}", f"{root}.block.{{s}}.{{b}}"
    yield from _affine(f"{_STAGE}.patch_embed.proj", f"{root}.patch_embeddings.{{s}}.proj")
    yield from _affine(f"{_STAGE}.patch_embed.norm", f"{root}.patch_embeddings.{{s}}.layer_norm")
    for ours, (_, name, _) in (_BLOCK | _LINEAR).items():
        yield from _affine(f"{block}.{ours}", f"{theirs}.{name}")
    for kind in ("weight", "bias"):
        names = (f"{theirs}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))
        yield Rule(f"{block}.attn.qkv.{kind}", tuple(names))
    yield from _affine(f"{_STAGE}.norm", f"{root}.layer_norm.{{s}}")
    yield from _affine(f"{_HEAD}.levels.{{s}}", "decode_head.linear_c.{s}.proj")
    yield Rule(f"{_HEAD}.fuse.weight", "decode_head.linear_fuse.weight")
    yield from _batch_norm(f"{_HEAD}.fuse.norm", "decode_head.batch_norm")
    yield from _affine(f"{_HEAD}.predictor", "decode_head.classifier")


def _official_backbone(prefix: str) -> Iterator[Rule]:
    """The names of a stage have its number, from 1, in the middle of a part."""
    for s in _STAGES:
        stage, number = f"backbone.stages.{s}", s + 1
        block, theirs = f"{stage}.blocks.{{b}}", f"{prefix}block{number}.{{b}}"
        yield from _affine(f"{stage}.patch_embed.proj", f"{prefix}patch_embed{number}.proj")
        yield from _affine(f"{stage}.patch_embed.norm", f"{prefix}patch_embed{number}.norm")
        for ours, (_, _, name) in (_BLOCK | _LINEAR).items():
            yield from _affine(f"{block}.{ours}", f"{theirs}.{name}")
        for kind in ("weight", "bias"):
            parts = (f"{theirs}.attn.q.{kind}", f"{theirs}.attn.kv.{kind}")
            yield Rule(f"{block}.attn.qkv.{kind}", parts, shares=(1, 2))
        yield from _affine(f"{stage}.norm", f"{prefix}norm{number}")


def _official_head() -> Iterator[Rule]:
    for s in _STAGES:
        yield from _affine(f"{_HEAD}.levels.{s}", f"decode_head.linear_c{s + 1}.proj")
    yield Rule(f"{_HEAD}.fuse.weight", "decode_head.linear_fuse.conv.weight")
    yield from _batch_norm(f"{_HEAD}.fuse.norm", "decode_head.linear_fuse.bn")
    yield from _affine(f"{_HEAD}.predictor", "decode_head.linear_pred")


MMSEGMENTATION = Table(
    "mmsegmentation",
    ("backbone.layers.0.1.0.attn.attn.in_proj_weight", "decode_head.fusion_conv.conv.weight"),
    tuple(_mmseg_rules()),
)
TRANSFORMERS = Table(
    "transformers",
    ("segformer.encoder.patch_embeddings.0.proj.weight",),
    tuple(_transformers_rules()),
    unused=("classifier.weight", "classifier.bias"),  # of ImageNet
)
OFFICIAL = Table(
    "nvlabs",
    ("backbone.patch_embed1.proj.weight", "decode_head.linear_c1.proj.weight"),
    (*_official_backbone("backbone."), *_official_head()),
    unused=("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"),  # of its base class
)
OFFICIAL_BACKBONE = Table(
    "nvlabs",
    ("patch_embed1.proj.weight", "block1.0.attn.q.weight"),
    tuple(_official_backbone("")),
    unused=("head.weight", "head.bias"),
)
MMSEGMENTATION_BACKBONE = Table(
    "mmsegmentation",
    ("layers.0.0.projection.weight", "layers.0.1.0.attn.attn.in_proj_weight"),
    tuple(
        Rule(rule.ours, rule.theirs.removeprefix("backbone."), rule.to_ours, rule.to_theirs)
        for rule in MMSEGMENTATION.rules
        if rule.ours.startswith("backbone.")
    ),
)
TABLES = (
    MMSEGMENTATION,
    TRANSFORMERS,
    OFFICIAL,
    OFFICIAL_BACKBONE,
    MMSEGMENTATION_BACKBONE,
)
