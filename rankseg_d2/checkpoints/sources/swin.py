"""Swin Transformers under the names of mmsegmentation and of HuggingFace."""

from torch import Tensor

from .table import Rule


def tokens(grid: Tensor) -> Tensor:
    """Position embeddings (1, D, h, w) -> (1, h·w, D)."""
    return grid.flatten(2).mT


def grid(tokens: Tensor) -> Tensor:
    """(1, N, D) of a square -> (1, D, h, w)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.mT.unflatten(2, (side, side))


def by_neighbour(weight: Tensor) -> Tensor:
    """(..., 4·D) of merged patches, ordered by channel, row, column -> by column, row, channel."""
    channels = weight.unflatten(-1, (-1, 2, 2))  # (..., D, row, column)
    return channels.transpose(-3, -1).flatten(-3)


def by_channel(weight: Tensor) -> Tensor:
    """The inverse of `by_neighbour`."""
    return weight.unflatten(-1, (2, 2, -1)).transpose(-3, -1).flatten(-3)


_BLOCK, _DOWN = "backbone.layers.{s}.blocks.{b}", "backbone.layers.{s}.downsample"
_MM_BLOCK, _MM_DOWN = "backbone.stages.{s}.blocks.{b}", "backbone.stages.{s}.downsample"

MMSEG_SWIN: tuple[Rule, ...] = (
    Rule("backbone.absolute_pos_embed", "backbone.absolute_pos_embed", grid, tokens),
    Rule("backbone.patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    Rule("backbone.patch_embed.norm.{p}", "backbone.patch_embed.norm.{p}"),
    Rule(f"{_BLOCK}.norm{{i}}.{{p}}", f"{_MM_BLOCK}.norm{{i}}.{{p}}"),
    Rule(f"{_BLOCK}.attn.{{p}}", f"{_MM_BLOCK}.attn.w_msa.{{p}}"),
    Rule(f"{_BLOCK}.attn.{{layer}}.{{p}}", f"{_MM_BLOCK}.attn.w_msa.{{layer}}.{{p}}"),
    Rule(f"{_BLOCK}.mlp.fc1.{{p}}", f"{_MM_BLOCK}.ffn.layers.0.0.{{p}}"),
    Rule(f"{_BLOCK}.mlp.fc2.{{p}}", f"{_MM_BLOCK}.ffn.layers.1.{{p}}"),
    Rule(f"{_DOWN}.norm.{{p}}", f"{_MM_DOWN}.norm.{{p}}", by_neighbour, by_channel),
    Rule(f"{_DOWN}.reduction.{{p}}", f"{_MM_DOWN}.reduction.{{p}}", by_neighbour, by_channel),
    *(Rule(f"backbone.norm{i}.{{p}}", f"backbone.norm{i}.{{p}}") for i in range(4)),
)


def huggingface_swin(prefix: str, norms: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of a Swin Transformer behind `prefix`; `norms` are those of the four features."""
    stage = f"{prefix}encoder.layers.{{s}}"
    block = f"{stage}.blocks.{{b}}"
    attention = f"{block}.attention.self"
    qkv = tuple(f"{attention}.{name}.{{p}}" for name in ("query", "key", "value"))
    embeddings = f"{prefix}embeddings"
    return (
        Rule("backbone.absolute_pos_embed", f"{embeddings}.position_embeddings", grid, tokens),
        Rule("backbone.patch_embed.proj.{p}", f"{embeddings}.patch_embeddings.projection.{{p}}"),
        Rule("backbone.patch_embed.norm.{p}", f"{embeddings}.norm.{{p}}"),
        Rule(f"{_BLOCK}.norm1.{{p}}", f"{block}.layernorm_before.{{p}}"),
        Rule(f"{_BLOCK}.norm2.{{p}}", f"{block}.layernorm_after.{{p}}"),
        Rule(f"{_BLOCK}.attn.{{p}}", f"{attention}.{{p}}"),
        Rule(f"{_BLOCK}.attn.qkv.{{p}}", qkv),
        Rule(f"{_BLOCK}.attn.proj.{{p}}", f"{block}.attention.output.dense.{{p}}"),
        Rule(f"{_BLOCK}.mlp.fc1.{{p}}", f"{block}.intermediate.dense.{{p}}"),
        Rule(f"{_BLOCK}.mlp.fc2.{{p}}", f"{block}.output.dense.{{p}}"),
        Rule(f"{_DOWN}.{{layer}}.{{p}}", f"{stage}.downsample.{{layer}}.{{p}}"),
        *(Rule(f"backbone.norm{i}.{{p}}", f"{norm}.{{p}}") for i, norm in enumerate(norms)),
    )


HUGGINGFACE_SWIN = huggingface_swin(
    "backbone.", tuple(f"backbone.hidden_states_norms.stage{i}" for i in range(1, 5))
)
