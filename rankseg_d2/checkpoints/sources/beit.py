"""BEiT with a pyramid under the names of its authors, of mmsegmentation and HuggingFace."""

from .table import Rule

_TABLES = ("q_bias", "v_bias", "relative_position_bias_table")
_LINEAR = ("qkv.weight", "proj.{p}")
# Constants that this package computes.
INDEX = "backbone.{blocks}.{b}.attn.relative_position_index"


def _rules(names: dict[str, str]) -> tuple[Rule, ...]:
    """The rules of names that differ from ours in these parts, {ours: theirs}."""
    block = [f"attn.{name}" for name in (*_TABLES, *_LINEAR)]
    block += ["gamma_1", "gamma_2", "norm1.{p}", "norm2.{p}", "mlp.fc1.{p}", "mlp.fc2.{p}"]
    ours = ["cls_token", "patch_embed.proj.{p}", *(f"blocks.{{b}}.{name}" for name in block)]
    ours += ["fpn1.{i}.{p}", "fpn2.{i}.{p}"]
    rules = []
    for name in ours:
        theirs = f"backbone.{name}"
        for mine, its in names.items():
            theirs = theirs.replace(mine, its)
        rules.append(Rule(f"backbone.{name}", theirs))
    return tuple(rules)


BEIT = _rules({})
MMSEG_BEIT = _rules(
    {
        "patch_embed.proj.": "patch_embed.projection.",
        "blocks.": "layers.",
        ".norm": ".ln",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
        "backbone.fpn1": "neck.upsample_4x",
        "backbone.fpn2": "neck.upsample_2x",
    }
)

_HF = "beit.encoder.layer.{b}"
_HF_SELF = f"{_HF}.attention.attention"
_BLOCK = "backbone.blocks.{b}"
HUGGINGFACE_BEIT: tuple[Rule, ...] = (
    Rule("backbone.cls_token", "beit.embeddings.cls_token"),
    Rule("backbone.patch_embed.proj.{p}", "beit.embeddings.patch_embeddings.projection.{p}"),
    Rule(f"{_BLOCK}.gamma_1", f"{_HF}.lambda_1"),
    Rule(f"{_BLOCK}.gamma_2", f"{_HF}.lambda_2"),
    Rule(f"{_BLOCK}.norm1.{{p}}", f"{_HF}.layernorm_before.{{p}}"),
    Rule(f"{_BLOCK}.norm2.{{p}}", f"{_HF}.layernorm_after.{{p}}"),
    Rule(
        f"{_BLOCK}.attn.qkv.weight",
        tuple(f"{_HF_SELF}.{name}.weight" for name in ("query", "key", "value")),
    ),
    Rule(f"{_BLOCK}.attn.q_bias", f"{_HF_SELF}.query.bias"),
    Rule(f"{_BLOCK}.attn.v_bias", f"{_HF_SELF}.value.bias"),
    Rule(
        f"{_BLOCK}.attn.relative_position_bias_table",
        f"{_HF_SELF}.relative_position_bias.relative_position_bias_table",
    ),
    Rule(f"{_BLOCK}.attn.proj.{{p}}", f"{_HF}.attention.output.dense.{{p}}"),
    Rule(f"{_BLOCK}.mlp.fc1.{{p}}", f"{_HF}.intermediate.dense.{{p}}"),
    Rule(f"{_BLOCK}.mlp.fc2.{{p}}", f"{_HF}.output.dense.{{p}}"),
    Rule("backbone.fpn1.{i}.{p}", "fpn1.{i}.{p}"),
    Rule("backbone.fpn2.{i}.{p}", "fpn2.{i}.{p}"),
)
HUGGINGFACE_INDEX = f"{_HF_SELF}.relative_position_bias.relative_position_index"
