"""Segmenter's models: of mmsegmentation, of RankSeg's fork of it, of its authors; AugReg's ViTs."""

import torch
from torch import Tensor

from .table import Rule, Table, transposed

HEAD = "sem_seg_head"
_MAX_BLOCKS = 8  # of a decoder whose first block is the multi-label head's
# A block's parts here (timm's names, which Segmenter's authors use too), and in mmsegmentation.
_PARTS = {
    "norm1.{kind}": "ln1.{kind}",
    "attn.qkv.weight": "attn.attn.in_proj_weight",
    "attn.qkv.bias": "attn.attn.in_proj_bias",
    "attn.proj.{kind}": "attn.attn.out_proj.{kind}",
    "norm2.{kind}": "ln2.{kind}",
    "mlp.fc1.{kind}": "ffn.layers.0.0.{kind}",
    "mlp.fc2.{kind}": "ffn.layers.1.{kind}",
}


def _blocks(ours: str, theirs: str, is_mmseg: bool) -> list[Rule]:
    """The rules of a transformer block."""
    return [
        Rule(f"{ours}.{name}", f"{theirs}.{other if is_mmseg else name}")
        for name, other in _PARTS.items()
    ]


def _squeezed(x: Tensor) -> Tensor:
    """A 1 x 1 convolution as a linear layer."""
    return x.flatten(1)


def _unsqueezed(x: Tensor) -> Tensor:
    return x[..., None, None]


def _vit(prefix: str, patches: str, blocks: str, norm: str, is_mmseg: bool) -> tuple[Rule, ...]:
    """The rules of the backbone."""
    return (
        Rule("backbone.cls_token", f"{prefix}.cls_token"),
        Rule("backbone.pos_embed", f"{prefix}.pos_embed"),
        Rule("backbone.class_embedding", f"{prefix}.cls_emb"),
        Rule("backbone.patch_embed.proj.{kind}", f"{prefix}.{patches}.{{kind}}"),
        *_blocks("backbone.blocks.{n}", f"{prefix}.{blocks}.{{n}}", is_mmseg),
        Rule("backbone.norm.{kind}", f"{prefix}.{norm}.{{kind}}"),
    )


_MMSEG_VIT = _vit("backbone", "patch_embed.projection", "layers", "ln1", is_mmseg=True)


def _decoder(theirs: str, block: int = 0) -> tuple[Rule, ...]:
    """The mask decoder of the authors and of the fork, whose first block here is `block` there."""
    if block:
        blocks = [
            rule
            for n in range(_MAX_BLOCKS)
            for rule in _blocks(f"{HEAD}.blocks.{n}", f"{theirs}.blocks.{n + block}", False)
        ]
    else:
        blocks = _blocks(f"{HEAD}.blocks.{{n}}", f"{theirs}.blocks.{{n}}", False)
    return (
        Rule(f"{HEAD}.cls_emb", f"{theirs}.cls_emb"),
        Rule(f"{HEAD}.proj_dec.{{kind}}", f"{theirs}.proj_dec.{{kind}}"),
        *blocks,
        Rule(f"{HEAD}.decoder_norm.{{kind}}", f"{theirs}.decoder_norm.{{kind}}"),
        Rule(f"{HEAD}.proj_patch.weight", f"{theirs}.proj_patch", transposed, transposed),
        Rule(f"{HEAD}.proj_classes.weight", f"{theirs}.proj_classes", transposed, transposed),
    )


_IMAGE_HEAD = "decode_head.img_cls_head"
_RANK_NORM = (Rule("ml_norm.{kind}", "decode_head.mask_norm.{kind}"),)
_ORACLE_NORM = (
    Rule("ml_norm.weight", "decode_head.mask_norm.gamma"),
    Rule("ml_norm.bias", "decode_head.mask_norm.beta"),
)
_BLOCK_HEAD = (
    *_blocks("ml_head.block", "decode_head.blocks.0", False),
    Rule("ml_head.norm.{kind}", "decode_head.decoder_norm2.{kind}"),
    Rule("ml_head.fc.{kind}", "decode_head.ml_fc.{kind}"),
)
_ENCODER_HEAD = (
    Rule("ml_head.cls_emb", f"{_IMAGE_HEAD}.cls_emb"),
    Rule("ml_head.proj_dec.{kind}", f"{_IMAGE_HEAD}.proj_dec.{{kind}}"),
    Rule("ml_head.proj_dec.depthwise.weight", f"{_IMAGE_HEAD}.proj_dec.depthwise_conv.conv.weight",
         lambda x: x.squeeze(3), lambda x: x.unsqueeze(3)),
    Rule("ml_head.proj_dec.pointwise.weight", f"{_IMAGE_HEAD}.proj_dec.pointwise_conv.conv.weight",
         _squeezed, _unsqueezed),
    Rule("ml_head.proj_dec.{part}.bias", f"{_IMAGE_HEAD}.proj_dec.{{part}}_conv.conv.bias"),
    *_blocks("ml_head.block", f"{_IMAGE_HEAD}.block", False),
    Rule("ml_head.norm.{kind}", f"{_IMAGE_HEAD}.norm.{{kind}}"),
    Rule("ml_head.fc.{kind}", f"{_IMAGE_HEAD}.fc.{{kind}}"),
)  # fmt: skip
_DECODER = f"{_IMAGE_HEAD}.transformer.decoder"
_DECODER_HEAD = (
    Rule("ml_head.cls_emb", f"{_IMAGE_HEAD}.query_embed.weight",
         lambda x: x.unsqueeze(0), lambda x: x.squeeze(0)),
    Rule("ml_head.proj_dec.weight", f"{_IMAGE_HEAD}.input_proj.weight", _squeezed, _unsqueezed),
    Rule("ml_head.proj_dec.bias", f"{_IMAGE_HEAD}.input_proj.bias"),
    Rule("ml_head.layers.{n}.{part}.{kind}", f"{_DECODER}.layers.{{n}}.{{part}}.{{kind}}"),
    Rule("ml_head.layers.{n}.{part}.out_proj.{kind}",
         f"{_DECODER}.layers.{{n}}.{{part}}.out_proj.{{kind}}"),
    Rule("ml_head.norm.{kind}", f"{_DECODER}.norm.{{kind}}"),
    Rule("ml_head.fc.{kind}", f"{_IMAGE_HEAD}.fc.{{kind}}"),
)  # fmt: skip
_POOLING_HEAD = (
    Rule("ml_head.hidden.weight", f"{_IMAGE_HEAD}.1.conv.weight", _squeezed, _unsqueezed),
    Rule("ml_head.hidden.bias", f"{_IMAGE_HEAD}.1.conv.bias"),
    Rule("ml_head.fc.weight", f"{_IMAGE_HEAD}.2.weight", _squeezed, _unsqueezed),
    Rule("ml_head.fc.bias", f"{_IMAGE_HEAD}.2.bias"),
)


def _fork(mark: str, rules: tuple[Rule, ...], block: int = 0) -> Table:
    """The table of a Segmenter of RankSeg's fork of mmsegmentation, known by `mark`."""
    rules = (*rules, *_MMSEG_VIT, *_decoder("decode_head", block))
    marks = (mark, "decode_head.proj_patch", "backbone.ln1.weight")
    unused = (f"{_IMAGE_HEAD}.position_embedding.pe",)  # computed
    return Table("rankseg", marks, rules, unused)


_MMSEG_DECODER = (
    Rule(f"{HEAD}.class_norm.{{kind}}", "decode_head.mask_norm.{kind}"),
    Rule(f"{HEAD}.cls_emb", "decode_head.cls_emb"),
    Rule(f"{HEAD}.proj_dec.{{kind}}", "decode_head.dec_proj.{kind}"),
    *_blocks(f"{HEAD}.blocks.{{n}}", "decode_head.layers.{n}", True),
    Rule(f"{HEAD}.decoder_norm.{{kind}}", "decode_head.decoder_norm.{kind}"),
    Rule(f"{HEAD}.proj_patch.weight", "decode_head.patch_proj.weight"),
    Rule(f"{HEAD}.proj_classes.weight", "decode_head.classes_proj.weight"),
)
_MMSEG_LINEAR = (
    Rule(f"{HEAD}.predictor.weight", "decode_head.conv_seg.weight", _squeezed, _unsqueezed),
    Rule(f"{HEAD}.predictor.bias", "decode_head.conv_seg.bias"),
)
_AUTHORS_VIT = _vit("encoder", "patch_embed.proj", "blocks", "norm", is_mmseg=False)
_UNUSED = ("encoder.head.{kind}",)  # ImageNet's classifier


def _stacked(x: Tensor) -> Tensor:
    """Queries, keys and values of AugReg, (3D, heads, D/heads), as a linear layer's weight."""
    return torch.cat([part.flatten(1).mT for part in x.chunk(3)])


def _split_heads(x: Tensor) -> Tensor:
    """The inverse, for the published models, whose heads have 64 channels."""
    return x.unflatten(0, (3, -1)).mT.unflatten(2, (-1, 64)).flatten(0, 1)


def _augreg(prefix: str) -> Table:
    """The table of a ViT's .npz file; some have a prefix in front of all names."""
    block = f"{prefix}Transformer/encoderblock_{{n}}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    names = {"weight": "scale", "bias": "bias"}
    parts = ("query", "key", "value")
    rules = [
        Rule("backbone.cls_token", f"{prefix}cls"),
        Rule("backbone.pos_embed", f"{prefix}Transformer/posembed_input/pos_embedding"),
        Rule("backbone.patch_embed.proj.weight", f"{prefix}embedding/kernel",
             lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0)),
        Rule("backbone.patch_embed.proj.bias", f"{prefix}embedding/bias"),
        Rule("backbone.blocks.{n}.attn.qkv.weight",
             tuple(f"{attention}/{part}/kernel" for part in parts), _stacked, _split_heads),
        Rule("backbone.blocks.{n}.attn.qkv.bias",
             tuple(f"{attention}/{part}/bias" for part in parts),
             torch.flatten, lambda x: x.unflatten(0, (-1, 64))),
        Rule("backbone.blocks.{n}.attn.proj.weight", f"{attention}/out/kernel",
             lambda x: x.flatten(0, 1).mT, lambda x: x.mT.unflatten(0, (-1, 64))),
        Rule("backbone.blocks.{n}.attn.proj.bias", f"{attention}/out/bias"),
    ]  # fmt: skip
    for ours, theirs in names.items():
        rules.append(Rule(f"backbone.norm.{ours}", f"{prefix}Transformer/encoder_norm/{theirs}"))
        for number, norm in enumerate(("LayerNorm_0", "LayerNorm_2"), 1):
            own = f"backbone.blocks.{{n}}.norm{number}.{ours}"
            rules.append(Rule(own, f"{block}/{norm}/{theirs}"))
    for number in (1, 2):
        layer = f"{block}/MlpBlock_3/Dense_{number - 1}"
        ours = f"backbone.blocks.{{n}}.mlp.fc{number}"
        rules.append(Rule(f"{ours}.weight", f"{layer}/kernel", transposed, transposed))
        rules.append(Rule(f"{ours}.bias", f"{layer}/bias"))
    unused = (f"{prefix}head/{{kind}}", f"{prefix}pre_logits/{{kind}}")
    marks = (f"{prefix}cls", f"{prefix}Transformer/encoder_norm/scale")
    return Table("augreg", marks, tuple(rules), unused)


TABLES = (
    _fork("decode_head.ml_fc.W", (*_RANK_NORM, *_BLOCK_HEAD), block=1),
    _fork(f"{_IMAGE_HEAD}.input_proj.weight", (*_RANK_NORM, *_DECODER_HEAD)),
    _fork(f"{_IMAGE_HEAD}.block.norm1.weight", (*_RANK_NORM, *_ENCODER_HEAD)),
    _fork(f"{_IMAGE_HEAD}.2.weight", (*_RANK_NORM, *_POOLING_HEAD)),
    _fork("decode_head.mask_norm.gamma", _ORACLE_NORM),
    _fork("decode_head.mask_norm.weight", _MMSEG_DECODER[:1]),
    Table(
        "mmsegmentation",
        ("decode_head.patch_proj.weight", "backbone.ln1.weight"),
        (*_MMSEG_DECODER, *_MMSEG_VIT),
    ),
    Table(
        "mmsegmentation",
        ("decode_head.conv_seg.weight", "backbone.cls_token", "backbone.ln1.weight"),
        (*_MMSEG_LINEAR, *_MMSEG_VIT),
    ),
    Table(
        "segmenter",
        ("encoder.cls_token", "decoder.proj_patch"),
        (
            Rule(f"{HEAD}.class_norm.{{kind}}", "decoder.mask_norm.{kind}"),
            *_AUTHORS_VIT,
            *_decoder("decoder"),
        ),
        _UNUSED,
    ),
    Table(
        "segmenter",
        ("encoder.cls_token", "decoder.head.weight"),
        (Rule(f"{HEAD}.predictor.{{kind}}", "decoder.head.{kind}"), *_AUTHORS_VIT),
        _UNUSED,
    ),
    _augreg(""),
    _augreg("opt/target/"),
)
