"""CSWin Transformers under their authors' names, which are ours."""

from .table import Rule

_STAGE = "backbone.stage{s}.{b}"
_NAMES = (
    "backbone.stage1_conv_embed.{i}.{p}",
    "backbone.merge{s}.{layer}.{p}",
    "backbone.norm{s}.{p}",
    f"{_STAGE}.{{layer}}.{{p}}",
    f"{_STAGE}.attns.{{i}}.get_v.{{p}}",
    f"{_STAGE}.mlp.{{layer}}.{{p}}",
)
CSWIN = tuple(Rule(name, name) for name in _NAMES)
