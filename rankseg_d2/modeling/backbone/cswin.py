"""CSWin Transformer (Dong et al., CVPR 2022), under its authors' parameter names."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...transformer_block import Mlp
from ..drop_path import drop_path, drop_rates
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_linear
from .windows import cropped, from_windows, padded, to_windows, whole_windows

_NAMES = ("res2", "res3", "res4", "res5")
_PATCH = 4  # stride of the first stage


@register(BACKBONE_REGISTRY)
class CSWinTransformer(Backbone):
    """Images of any size -> feature name -> (B, channels, h, w), where h is H / stride, rounded up.

    Built from MODEL.CSWIN of a config, or from the arguments; the defaults are CSWin-T's. Stage i
    of the paper is res<i+1> and is built only if it or a later one is in `out_features`.
    """

    any_size = True  # without padding; `size_divisibility` is what decoders want

    @configurable
    def __init__(
        self,
        embed_dim: int = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        stripe_widths: Sequence[int] = (1, 2, 7),
        *,
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.3,
        out_features: Sequence[str] = _NAMES,
        use_checkpoint: bool = False,
    ):
        """`stripe_widths`: of the first three stages; attention in the last one is global."""
        super().__init__()
        _check(embed_dim, depths, num_heads, stripe_widths, out_features)
        names = _NAMES[: max(map(_NAMES.index, out_features)) + 1]
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_channels = {name: embed_dim * 2**i for i, name in enumerate(names)}
        self._out_feature_strides = {name: _PATCH * 2**i for i, name in enumerate(names)}
        self.use_checkpoint = use_checkpoint

        # The second of the three layers has no weights.
        self.stage1_conv_embed = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim, 7, _PATCH, 2),
            ToChannelsLast(),
            nn.LayerNorm(embed_dim),
        )
        rates, widths = drop_rates(drop_path_rate, depths), (*stripe_widths, None)
        for i, name in enumerate(names):
            dim = embed_dim * 2**i
            if i:
                self.add_module(f"merge{i}", Merge(dim // 2, dim))
            blocks = (Block(dim, num_heads[i], widths[i], rate, mlp_ratio) for rate in rates[i])
            self.add_module(f"stage{i + 1}", nn.ModuleList(blocks))
            if name in out_features:
                self.add_module(f"norm{i + 1}", nn.LayerNorm(dim))
        self.apply(init_linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        cswin = cfg.MODEL.CSWIN
        return {
            "embed_dim": cswin.EMBED_DIM,
            "depths": cswin.DEPTHS,
            "num_heads": cswin.NUM_HEADS,
            "stripe_widths": cswin.STRIPE_WIDTHS,
            "in_channels": input_shape.channels,
            "mlp_ratio": cswin.MLP_RATIO,
            "drop_path_rate": cswin.DROP_PATH_RATE,
            "out_features": cswin.OUT_FEATURES,
            "use_checkpoint": cswin.USE_CHECKPOINT,
        }

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.dim() != 4:
            raise ValueError(f"a CSWin Transformer takes images (B, C, H, W), not {tuple(x.shape)}")
        height, width = x.shape[-2:]
        if isinstance(height, int):  # a graph for any size takes multiples of 32
            x = F.pad(x, (0, -width % _PATCH, 0, -height % _PATCH))
        x = self.stage1_conv_embed(x)  # (B, h, w, D), as everywhere below
        features = {}
        for i, name in enumerate(self._out_feature_strides):
            if i:
                x = getattr(self, f"merge{i}")(x)
            for block in getattr(self, f"stage{i + 1}"):
                x = run_layer(block, x, use_checkpoint=self.use_checkpoint and self.training)
            if name in self._out_features:
                features[name] = getattr(self, f"norm{i + 1}")(x).permute(0, 3, 1, 2)
        return features

    def layers_above(self) -> dict[str, int]:
        """For each parameter the number of blocks above its own, for layer-wise decay.

        The patch embedding counts as the first block, a merging of patches as the block after it,
        and the norm of a stage as its last block.
        """
        first, count = [], 0  # the first block of each stage
        for i in range(len(self._out_feature_strides)):
            first.append(count)
            count += len(getattr(self, f"stage{i + 1}"))
        last = [number - 1 for number in (*first[1:], count)]
        above = {}
        for name, _ in self.named_parameters():
            part, block = name.split(".")[:2]
            kind, stage = part[:-1], 0 if part == "stage1_conv_embed" else int(part[-1])
            if kind == "stage":
                index = first[stage - 1] + int(block)
            else:
                index = last[stage - 1] if kind == "norm" else first[stage]
            above[name] = count - 1 - index
        return above


class ToChannelsLast(nn.Module):
    """(B, D, h, w) -> (B, h, w, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Merge(nn.Module):
    """(B, h, w, D) -> (B, h / 2, w / 2, D'), rounded up."""

    def __init__(self, dim: int, new_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, new_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(new_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention within a cross of stripes and an MLP, each after a norm and beside a shortcut.

    Half of the heads attend within vertical stripes, the others within horizontal ones. If
    `stripe_width` is None, all attend to the whole map.
    """

    def __init__(self, dim, num_heads, stripe_width, drop_path_rate, mlp_ratio):
        super().__init__()
        self.stripe_width = stripe_width
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        parts = 1 if stripe_width is None else 2
        self.attns = nn.ModuleList(
            StripeAttention(dim // parts, num_heads // parts) for _ in range(parts)
        )
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + drop_path(self.attend(self.norm1(x)), self.drop_path_rate, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path_rate, self.training)

    def attend(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, D)."""
        height, width = x.shape[1:3]
        stripes = [(height, width)]
        if self.stripe_width is not None:
            stripes = [(height, self.stripe_width), (self.stripe_width, width)]
        qkv = self.qkv(x).unflatten(3, (3, len(stripes), -1))  # (B, h, w, 3, parts, D / parts)
        read = [
            attend(part, stripe)
            for attend, part, stripe in zip(self.attns, qkv.unbind(4), stripes, strict=True)
        ]
        return self.proj(torch.cat(read, dim=-1))


class StripeAttention(nn.Module):
    """Attention within stripes, plus a convolution of each channel of the values (LePE).

    Neither sees beyond its stripe. A map that is no multiple of a stripe is padded with zeros on
    both sides, which are keys and values like others.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.get_v = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, qkv: Tensor, stripe: tuple[int, int]) -> Tensor:
        """(B, h, w, 3, D), height and width of a stripe -> (B, h, w, D)."""
        *size, _, dim = qkv.shape[1:]
        whole = tuple(map(whole_windows, size, stripe))
        before = [(side - length) // 2 for side, length in zip(whole, size, strict=True)]
        x = padded(qkv.flatten(3), whole, before)
        windows = to_windows(x, stripe)  # (B, W, N, 3D)
        heads = windows.unflatten(3, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        read = F.scaled_dot_product_attention(*heads.flatten(1, 2))  # (B * W, M, N, d)
        values = windows[..., 2 * dim :].flatten(0, 1).mT.unflatten(2, stripe)  # (B * W, D, r, c)
        mixed = read.transpose(1, 2).flatten(2) + self.get_v(values).flatten(2).mT
        x = from_windows(mixed.unflatten(0, windows.shape[:2]), stripe, x.shape[2])
        return cropped(x, size, before)


def _check(embed_dim, depths, num_heads, stripe_widths, out_features) -> None:
    """Raise ValueError unless these describe four stages."""
    for key, values, count in (
        ("DEPTHS", depths, 4), ("NUM_HEADS", num_heads, 4), ("STRIPE_WIDTHS", stripe_widths, 3),
    ):  # fmt: skip
        if len(values) != count:
            which = "of the first three stages" if count == 3 else "one for each stage"
            raise ValueError(
                f"MODEL.CSWIN.{key} must have {count} numbers, {which}; got {list(values)}"
            )
    for i, heads in enumerate(num_heads):
        dim, parts = embed_dim * 2**i, 1 if i == 3 else 2
        if heads % parts or dim % heads:
            even = "an even divisor" if parts == 2 else "a divisor"
            raise ValueError(
                f"MODEL.CSWIN.NUM_HEADS: {heads} heads cannot share the {dim} channels of "
                f"{_NAMES[i]}; choose {even}, or change MODEL.CSWIN.EMBED_DIM"
            )
    if not out_features or not set(out_features) <= set(_NAMES):
        raise ValueError(
            f"MODEL.CSWIN.OUT_FEATURES must be some of {', '.join(_NAMES)}, got "
            f"{list(out_features)}"
        )
