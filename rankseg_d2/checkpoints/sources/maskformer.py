"""HuggingFace's Mask2Former and MaskFormer, on Swin, on its own ResNet and on timm's."""

from .mmsegmentation import resnet_stages
from .swin import huggingface_swin
from .table import Rule, Table

_DECODER, _PREDICTOR = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
_HF_BACKBONE = "model.pixel_level_module.encoder"
_HF_DECODER, _HF_PREDICTOR = "model.pixel_level_module.decoder", "model.transformer_module"
_HF_LAYER = f"{_HF_PREDICTOR}.decoder.layers.{{n}}"


def _layers(ours: str, theirs: str, names: dict[str, str]) -> tuple[Rule, ...]:
    """Weights and biases of the layers {ours: theirs} behind two prefixes."""
    return tuple(
        Rule(f"{ours}.{mine}.{{p}}", f"{theirs}.{its}.{{p}}") for mine, its in names.items()
    )


def _split(ours: str, theirs: str) -> Rule:
    """The projections of queries, keys and values, which they keep apart."""
    return Rule(f"{ours}.in_proj_{{p}}", tuple(f"{theirs}.{name}_proj.{{p}}" for name in "qkv"))


def _conv_norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A convolution and its group norm."""
    return (
        Rule(f"{ours}.weight", f"{theirs}.0.weight"),
        Rule(f"{ours}.norm.{{p}}", f"{theirs}.1.{{p}}"),
    )


def _resnet() -> tuple[Rule, ...]:
    """A ResNet under their own names."""
    convs = {"stem.conv1": "embedder.embedder"}
    parts = {"shortcut": "shortcut"} | {f"conv{i + 1}": f"layer.{i}" for i in range(3)}
    for s in range(4):
        block, theirs = f"res{s + 2}.{{b}}", f"encoder.stages.{s}.layers.{{b}}"
        convs |= {f"{block}.{mine}": f"{theirs}.{its}" for mine, its in parts.items()}
    rules = []
    for mine, its in convs.items():
        mine, its = f"backbone.{mine}", f"{_HF_BACKBONE}.{its}"
        rules += [
            Rule(f"{mine}.weight", f"{its}.convolution.weight"),
            Rule(f"{mine}.norm.{{p}}", f"{its}.normalization.{{p}}"),
        ]
    return tuple(rules)


_STAGES = f"{_HF_BACKBONE}.hidden_states_norms"
_MASK2FORMER_SWIN = huggingface_swin(
    f"{_HF_BACKBONE}.", tuple(f"{_STAGES}.stage{i}" for i in range(1, 5))
)
_MASKFORMER_SWIN = huggingface_swin(
    f"{_HF_BACKBONE}.model.", tuple(f"{_STAGES}.{i}" for i in range(4))
)
_TIMM = f"{_HF_BACKBONE}._backbone."
_TIMM_RESNET = (
    Rule("backbone.stem.conv1.weight", f"{_TIMM}conv1.weight"),
    Rule("backbone.stem.conv1.norm.{p}", f"{_TIMM}bn1.{{p}}"),
    *resnet_stages("backbone.", _TIMM),
)
_CLASSES = (
    Rule(f"{_PREDICTOR}.class_embed.{{p}}", "class_predictor.{p}"),
    Rule("criterion.empty_weight", "criterion.empty_weight"),
)

_ENCODER = f"{_DECODER}.transformer.encoder.layers.{{n}}"
_HF_ENCODER = f"{_HF_DECODER}.encoder.layers.{{n}}"
_SELF = f"{_PREDICTOR}.transformer_self_attention_layers.{{n}}"
_CROSS = f"{_PREDICTOR}.transformer_cross_attention_layers.{{n}}"
_QUERIES = {  # embeddings
    "query_feat": "queries_features", "query_embed": "queries_embedder",
    "level_embed": "level_embed",
}  # fmt: skip
_FEED_FORWARD = {"linear1": "fc1", "linear2": "fc2"}
_MASK2FORMER: tuple[Rule, ...] = (
    Rule(f"{_DECODER}.input_proj.{{i}}.{{j}}.{{p}}",
         f"{_HF_DECODER}.input_projections.{{i}}.{{j}}.{{p}}"),
    Rule(f"{_DECODER}.transformer.level_embed", f"{_HF_DECODER}.level_embed"),
    Rule(f"{_ENCODER}.self_attn.{{layer}}.{{p}}", f"{_HF_ENCODER}.self_attn.{{layer}}.{{p}}"),
    *_layers(_ENCODER, _HF_ENCODER, _FEED_FORWARD | {
        "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm",
    }),
    *_conv_norm(f"{_DECODER}.adapter_{{i}}", f"{_HF_DECODER}.adapter_{{i}}"),
    *_conv_norm(f"{_DECODER}.layer_{{i}}", f"{_HF_DECODER}.layer_{{i}}"),
    *_layers(_DECODER, _HF_DECODER, {"mask_features": "mask_projection"}),
    *_layers(_PREDICTOR, _HF_PREDICTOR, _QUERIES),
    *_layers(_PREDICTOR, _HF_PREDICTOR, {"input_proj.{i}": "input_projections.{i}"}),
    _split(f"{_SELF}.self_attn", f"{_HF_LAYER}.self_attn"),
    *_layers(_SELF, _HF_LAYER, {
        "self_attn.out_proj": "self_attn.out_proj", "norm": "self_attn_layer_norm",
    }),
    Rule(f"{_CROSS}.multihead_attn.{{p}}", f"{_HF_LAYER}.cross_attn.{{p}}"),
    *_layers(_CROSS, _HF_LAYER, {
        "multihead_attn.out_proj": "cross_attn.out_proj", "norm": "cross_attn_layer_norm",
    }),
    *_layers(f"{_PREDICTOR}.transformer_ffn_layers.{{n}}", _HF_LAYER, _FEED_FORWARD | {
        "norm": "final_layer_norm",
    }),
    *_layers(_PREDICTOR, f"{_HF_PREDICTOR}.decoder", {
        "decoder_norm": "layernorm", "mask_embed.layers.{i}": "mask_predictor.mask_embedder.{i}.0",
    }),
    *_CLASSES,
)  # fmt: skip

_DETR = f"{_PREDICTOR}.transformer.decoder"
_DETR_LAYER = f"{_DETR}.layers.{{n}}"
_MASKFORMER: tuple[Rule, ...] = (
    *_conv_norm(f"{_DECODER}.layer_4", f"{_HF_DECODER}.fpn.stem"),
    *(  # their layers go from coarse to fine
        rule for i in (1, 2, 3) for ours, part in (("adapter", "proj"), ("layer", "block"))
        for rule in _conv_norm(f"{_DECODER}.{ours}_{i}", f"{_HF_DECODER}.fpn.layers.{3 - i}.{part}")
    ),
    *_layers(_DECODER, _HF_DECODER, {"mask_features": "mask_projection"}),
    *_layers(_PREDICTOR, _HF_PREDICTOR, {
        "query_embed": "queries_embedder", "input_proj": "input_projection",
    }),
    _split(f"{_DETR_LAYER}.self_attn", f"{_HF_LAYER}.self_attn"),
    _split(f"{_DETR_LAYER}.multihead_attn", f"{_HF_LAYER}.encoder_attn"),
    *_layers(_DETR_LAYER, _HF_LAYER, _FEED_FORWARD | {
        "self_attn.out_proj": "self_attn.out_proj", "norm1": "self_attn_layer_norm",
        "multihead_attn.out_proj": "encoder_attn.out_proj", "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    }),
    *_layers(_DETR, f"{_HF_PREDICTOR}.decoder", {"norm": "layernorm"}),
    *_layers(_PREDICTOR, "mask_embedder", {"mask_embed.layers.{i}": "{i}.0"}),
    *_CLASSES,
)  # fmt: skip


def _tables(
    mark: str, rules: tuple[Rule, ...], swin: tuple[Rule, ...], swin_root: str
) -> tuple[Table, Table, Table]:
    """With Swin, with their own ResNet, and with timm's."""
    backbones = (
        (f"{swin_root}.embeddings.patch_embeddings.projection.weight", swin),
        (f"{_HF_BACKBONE}.embedder.embedder.convolution.weight", _resnet()),
        (f"{_TIMM}conv1.weight", _TIMM_RESNET),
    )
    # A norm of tokens that no feature passes.
    unused = tuple(f"{_HF_BACKBONE}.{name}layernorm.{{p}}" for name in ("", "swin.", "model."))
    return tuple(
        Table("transformers", (mark, one), (*backbone, *rules), unused)
        for one, backbone in backbones
    )


MASK2FORMER = _tables(
    f"{_HF_PREDICTOR}.queries_features.weight", _MASK2FORMER, _MASK2FORMER_SWIN, _HF_BACKBONE
)
MASKFORMER = _tables(
    f"{_HF_DECODER}.fpn.stem.0.weight", _MASKFORMER, _MASKFORMER_SWIN, f"{_HF_BACKBONE}.model"
)
TABLES = (*MASK2FORMER, *MASKFORMER)
