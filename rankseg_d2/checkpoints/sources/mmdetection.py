"""Mask2Former's head in mmdetection 2, as ViT-Adapter's models have it."""

from collections.abc import Iterator

from .table import Rule

_PIXELS, _THEIRS = "sem_seg_head.pixel_decoder", "decode_head.pixel_decoder"
_PREDICTOR, _DECODER = "sem_seg_head.predictor", "decode_head.transformer_decoder"
_WEIGHTS = "criterion.empty_weight"  # not in their files: a setting; in ours it has a name


def _feed_forward(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}.linear1.{{p}}", f"{theirs}.ffns.0.layers.0.0.{{p}}")
    yield Rule(f"{ours}.linear2.{{p}}", f"{theirs}.ffns.0.layers.1.{{p}}")


def _pixel_decoder() -> Iterator[Rule]:
    yield Rule(f"{_PIXELS}.input_proj.{{i}}.0.{{p}}", f"{_THEIRS}.input_convs.{{i}}.conv.{{p}}")
    yield Rule(f"{_PIXELS}.input_proj.{{i}}.1.{{p}}", f"{_THEIRS}.input_convs.{{i}}.gn.{{p}}")
    yield Rule(f"{_PIXELS}.transformer.level_embed", f"{_THEIRS}.level_encoding.weight")
    layer, theirs = f"{_PIXELS}.transformer.encoder.layers.{{n}}", f"{_THEIRS}.encoder.layers.{{n}}"
    yield Rule(f"{layer}.self_attn.{{part}}.{{p}}", f"{theirs}.attentions.0.{{part}}.{{p}}")
    yield Rule(f"{layer}.norm1.{{p}}", f"{theirs}.norms.0.{{p}}")
    yield Rule(f"{layer}.norm2.{{p}}", f"{theirs}.norms.1.{{p}}")
    yield from _feed_forward(layer, theirs)
    for ours, name in (("adapter_1", "lateral_convs.0"), ("layer_1", "output_convs.0")):
        yield Rule(f"{_PIXELS}.{ours}.weight", f"{_THEIRS}.{name}.conv.weight")
        yield Rule(f"{_PIXELS}.{ours}.norm.{{p}}", f"{_THEIRS}.{name}.gn.{{p}}")
    yield Rule(f"{_PIXELS}.mask_features.{{p}}", f"{_THEIRS}.mask_feature.{{p}}")


def _predictor() -> Iterator[Rule]:
    layer = f"{_DECODER}.layers.{{n}}"
    attentions = ("cross_attention", "multihead_attn"), ("self_attention", "self_attn")
    for i, (kind, module) in enumerate(attentions):
        ours = f"{_PREDICTOR}.transformer_{kind}_layers.{{n}}"
        theirs = f"{layer}.attentions.{i}.attn"
        yield Rule(f"{ours}.{module}.{{p}}", f"{theirs}.{{p}}")
        yield Rule(f"{ours}.{module}.out_proj.{{p}}", f"{theirs}.out_proj.{{p}}")
        yield Rule(f"{ours}.norm.{{p}}", f"{layer}.norms.{i}.{{p}}")
    ours = f"{_PREDICTOR}.transformer_ffn_layers.{{n}}"
    yield from _feed_forward(ours, layer)
    yield Rule(f"{ours}.norm.{{p}}", f"{layer}.norms.2.{{p}}")
    yield Rule(f"{_PREDICTOR}.decoder_norm.{{p}}", f"{_DECODER}.post_norm.{{p}}")
    for name in ("query_feat", "query_embed", "level_embed"):
        yield Rule(f"{_PREDICTOR}.{name}.weight", f"decode_head.{name}.weight")
    yield Rule(f"{_PREDICTOR}.class_embed.{{p}}", "decode_head.cls_embed.{p}")
    for i in range(3):
        theirs = f"decode_head.mask_embed.{2 * i}.{{p}}"
        yield Rule(f"{_PREDICTOR}.mask_embed.layers.{i}.{{p}}", theirs)


MASK2FORMER: tuple[Rule, ...] = (*_pixel_decoder(), *_predictor(), Rule(_WEIGHTS, _WEIGHTS))
