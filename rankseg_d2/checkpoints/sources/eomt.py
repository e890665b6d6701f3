"""EoMT under the names of its authors, which are timm's for the ViT, and of HuggingFace."""

from torch import Tensor

from .table import Rule, Table

_VIT, _HEAD = "backbone", "sem_seg_head.predictor"
_BLOCK, _UPSCALE = f"{_VIT}.blocks.{{n}}", "sem_seg_head.pixel_decoder.{n}"
_WEIGHTS = "criterion.empty_weight"


def _with_batch(positions: Tensor) -> Tensor:
    return positions[None]


def _without_batch(positions: Tensor) -> Tensor:
    return positions[0]


_NAMES = "network.encoder.backbone"
AUTHORS = Table(
    "eomt",
    ("network.q.weight", f"{_NAMES}.cls_token"),
    (
        *(Rule(f"{_VIT}.{name}", f"{_NAMES}.{name}")
          for name in ("cls_token", "reg_token", "pos_embed")),
        Rule(f"{_VIT}.patch_embed.proj.{{p}}", f"{_NAMES}.patch_embed.proj.{{p}}"),
        Rule(f"{_BLOCK}.{{part}}.{{p}}", f"{_NAMES}.blocks.{{n}}.{{part}}.{{p}}"),
        Rule(f"{_BLOCK}.{{part}}.{{layer}}.{{p}}",
             f"{_NAMES}.blocks.{{n}}.{{part}}.{{layer}}.{{p}}"),
        Rule(f"{_VIT}.norm.{{p}}", f"{_NAMES}.norm.{{p}}"),
        Rule(f"{_HEAD}.query_feat.weight", "network.q.weight"),
        Rule(f"{_HEAD}.class_embed.{{p}}", "network.class_head.{p}"),
        *(Rule(f"{_HEAD}.mask_embed.layers.{i}.{{p}}", f"network.mask_head.{2 * i}.{{p}}")
          for i in range(3)),
        Rule(f"{_UPSCALE}.{{layer}}.{{p}}", "network.upscale.{n}.{layer}.{p}"),
        Rule(_WEIGHTS, _WEIGHTS),
    ),
    (
        "network.attn_mask_probs", "network.encoder.pixel_mean", "network.encoder.pixel_std",
    ),
)  # fmt: skip

# A block's parts here, and HuggingFace's.
_PARTS = {
    "norm1.{p}": "norm1.{p}",
    "attn.proj.{p}": "attention.out_proj.{p}",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.{p}": "norm2.{p}",
    "mlp.{layer}.{p}": "mlp.{layer}.{p}",
    "ls2.gamma": "layer_scale2.lambda1",
}
_HF_BLOCK, _HF_UPSCALE = "layers.{n}", "upscale_block.block.{n}"
HUGGINGFACE = Table(
    "transformers",
    ("query.weight", "embeddings.register_tokens", "mask_head.fc1.weight"),
    (
        Rule(f"{_VIT}.cls_token", "embeddings.cls_token"),
        Rule(f"{_VIT}.reg_token", "embeddings.register_tokens"),
        Rule(f"{_VIT}.pos_embed", "embeddings.position_embeddings.weight",
             _with_batch, _without_batch),
        Rule(f"{_VIT}.patch_embed.proj.{{p}}", "embeddings.patch_embeddings.projection.{p}"),
        Rule(f"{_BLOCK}.attn.qkv.{{p}}",
             tuple(f"{_HF_BLOCK}.attention.{name}_proj.{{p}}" for name in "qkv")),
        *(Rule(f"{_BLOCK}.{ours}", f"{_HF_BLOCK}.{theirs}") for ours, theirs in _PARTS.items()),
        Rule(f"{_VIT}.norm.{{p}}", "layernorm.{p}"),
        Rule(f"{_HEAD}.query_feat.weight", "query.weight"),
        Rule(f"{_HEAD}.class_embed.{{p}}", "class_predictor.{p}"),
        *(Rule(f"{_HEAD}.mask_embed.layers.{i}.{{p}}", f"mask_head.fc{i + 1}.{{p}}")
          for i in range(3)),
        Rule(f"{_UPSCALE}.norm.{{p}}", f"{_HF_UPSCALE}.layernorm2d.{{p}}"),
        Rule(f"{_UPSCALE}.{{layer}}.{{p}}", f"{_HF_UPSCALE}.{{layer}}.{{p}}"),
        Rule(_WEIGHTS, _WEIGHTS),
    ),
    ("attn_mask_probs",),
)  # fmt: skip
TABLES = (AUTHORS, HUGGINGFACE)
