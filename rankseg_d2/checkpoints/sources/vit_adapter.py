"""ViT-Adapter's models: Mask2Former and UPerNet on BEiT, UPerNet on a plain ViT."""

from .beit import BEIT, INDEX
from .mmdetection import MASK2FORMER
from .mmsegmentation import CLASSIFIER
from .table import Rule, Table
from .upernet import UPERNET


def _same(*names: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"backbone.{name}", f"backbone.{name}") for name in names)


_ADAPTER = _same(
    "level_embed",
    "spm.{part}.{p}",
    "spm.{part}.{i}.{p}",
    "interactions.{n}.injector.gamma",
    *(f"interactions.{{n}}.{parts}.{{p}}" for parts in (
        "{a}.{b}", "{a}.{b}.{c}", "{a}.{b}.{c}.{d}", "{a}.{b}.{c}.{d}.{e}"
    )),
    "up.{p}",
    *(f"norm{i}.{{p}}" for i in range(1, 5)),
)  # fmt: skip
_BLOCK = "blocks.{n}"
_VIT = (
    *_same("pos_embed", "patch_embed.proj.{p}"),
    *_same(*(f"{_BLOCK}.{part}.{{p}}" for part in ("norm1", "norm2"))),
    *_same(f"{_BLOCK}.attn.{{layer}}.{{p}}", f"{_BLOCK}.mlp.{{layer}}.{{p}}"),
    *(Rule(f"backbone.{_BLOCK}.ls{i}.gamma", f"backbone.{_BLOCK}.gamma{i}") for i in (1, 2)),
)
_MARK, _BEIT_MARK = "backbone.spm.fc1.weight", "backbone.blocks.0.attn.q_bias"
_UPERNET_MARK = "decode_head.fpn_bottleneck.conv.weight"

BEIT_MASK2FORMER = Table(
    "vit_adapter",
    marks=(_MARK, _BEIT_MARK, "decode_head.cls_embed.weight"),
    rules=(*BEIT, *_ADAPTER, *MASK2FORMER),
    unused=(INDEX,),
)
BEIT_UPERNET = Table(
    "vit_adapter",
    marks=(_MARK, _BEIT_MARK, _UPERNET_MARK),
    rules=(*BEIT, *_ADAPTER, *UPERNET, *CLASSIFIER),
    unused=(INDEX,),
)
VIT_UPERNET = Table(
    "vit_adapter",
    marks=(_MARK, "backbone.pos_embed", _UPERNET_MARK),
    rules=(*_VIT, *_ADAPTER, *UPERNET, *CLASSIFIER),
)
TABLES = (BEIT_MASK2FORMER, BEIT_UPERNET, VIT_UPERNET)
