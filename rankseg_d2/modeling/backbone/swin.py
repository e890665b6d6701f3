"""Swin Transformer (Liu et al., ICCV 2021), with the parameter names of upstream's checkpoints."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...ops.exporting import is_exporting
from ...transformer_block import Mlp
from ..attention import relative_bias
from ..drop_path import drop_path, drop_rates
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_linear
from .windows import cropped, from_windows, padded, to_windows, whole_windows


@register(BACKBONE_REGISTRY)
class D2SwinTransformer(Backbone):
    """Images of any size -> feature name -> (B, channels, h, w), where h is H / stride, rounded up.

    Built from MODEL.SWIN of a config, or from the arguments. Stage i of the paper is res<i+1> and
    is built only if it or a later one is in `out_features`. `attention` goes to WindowAttention.
    """

    any_size = True  # without padding; `size_divisibility` is what decoders want

    @configurable
    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        *,
        in_channels: int = 3,
        patch_size: int = 4,
        patch_norm: bool = True,
        pretrain_size: int | None = None,  # not None: absolute position embedding of that image
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        use_checkpoint: bool = False,
        **attention: Any,
    ):
        super().__init__()
        names = _stage_names(embed_dim, depths, num_heads, out_features)
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_channels = {name: embed_dim * 2**i for i, name in enumerate(names)}
        self._out_feature_strides = {name: patch_size * 2**i for i, name in enumerate(names)}
        self.use_checkpoint = use_checkpoint

        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch_size, patch_norm)
        self.absolute_pos_embed = None
        if pretrain_size is not None:
            side = pretrain_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        rates = drop_rates(drop_path_rate, depths)
        self.layers = nn.ModuleList()
        for i, name in enumerate(names):
            block = {"mlp_ratio": mlp_ratio, "drop_rate": drop_rate, **attention}
            dim, heads, is_last = embed_dim * 2**i, num_heads[i], i == len(names) - 1
            self.layers.append(Stage(dim, heads, window_size, rates[i], is_last, **block))
            if name in out_features:
                self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self.apply(init_linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        swin = cfg.MODEL.SWIN
        return {
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "in_channels": input_shape.channels,
            "patch_size": swin.PATCH_SIZE,
            "patch_norm": swin.PATCH_NORM,
            "pretrain_size": swin.PRETRAIN_IMG_SIZE if swin.APE else None,
            "mlp_ratio": swin.MLP_RATIO,
            "drop_rate": swin.DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "out_features": swin.OUT_FEATURES,
            "use_checkpoint": swin.USE_CHECKPOINT,
            "qkv_bias": swin.QKV_BIAS,
            "qk_scale": swin.QK_SCALE,
            "attn_drop_rate": swin.ATTN_DROP_RATE,
        }

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.dim() != 4:
            raise ValueError(f"a Swin Transformer takes images (B, C, H, W), not {tuple(x.shape)}")
        x = self.patch_embed(x)  # (B, h, w, D), as everywhere below
        if self.absolute_pos_embed is not None:
            position = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + position.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        features = {}
        for i, stage in enumerate(self.layers):
            x = self.run_stage(i, x, features)
            name = f"res{i + 2}"
            if name in self._out_features:
                features[name] = getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2)
            x = stage.downsample(x)
        return features

    def run_stage(self, i: int, x: Tensor, features: dict[str, Tensor]) -> Tensor:
        """(B, h, w, D) after the blocks of stage i; subclasses may add features."""
        return self.layers[i](x, self.use_checkpoint and self.training)


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, h, w, D): one token per patch; the last ones are padded with zeros."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: int, norm: bool):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if isinstance(height, int):  # a graph for any size takes multiples of 32
            x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Blocks with plain and shifted windows in turn; `downsample` leads to the next stage."""

    def __init__(self, dim, num_heads, window_size, drop_path_rates, is_last, **block):
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, window_size, self.shift * (i % 2), drop_path=rate, **block)
            for i, rate in enumerate(drop_path_rates)
        )
        self.downsample = nn.Identity() if is_last else PatchMerging(dim)

    def forward(self, x: Tensor, use_checkpoint: bool = False) -> Tensor:
        whole = tuple(whole_windows(length, self.window_size) for length in x.shape[1:3])
        mask = shift_mask(*whole, self.window_size, self.shift, x.device)
        for block in self.blocks:
            block_mask = mask if block.shift else None
            x = run_layer(block, x, whole, block_mask, use_checkpoint=use_checkpoint)
        return x


class Block(nn.Module):
    """Attention within windows and an MLP, each after a norm and beside a shortcut."""

    def __init__(
        self, dim, num_heads, window_size, shift, *, drop_path, mlp_ratio, drop_rate, **attention
    ):
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size, drop_rate=drop_rate, **attention)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate)

    def forward(self, x: Tensor, whole: tuple[int, int], mask: Tensor | None) -> Tensor:
        x = x + self.drop(self.attend(self.norm1(x), whole, mask))
        return x + self.drop(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor, whole: tuple[int, int], mask: Tensor | None) -> Tensor:
        """Attention within windows of (B, h, w, D), padded with zeros to `whole` windows."""
        height, width = x.shape[1:3]
        size, shift = self.window_size, self.shift
        x = padded(x, whole)
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows = to_windows(x, (size, size))
        x = from_windows(self.attn(windows, mask), (size, size), x.shape[2])
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return cropped(x, (height, width))

    def drop(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop_path, self.training)


class WindowAttention(nn.Module):
    """Self-attention of the N tokens of each window, with a bias per head and relative position."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale
        self.attn_drop_rate = attn_drop_rate
        offsets = (2 * window_size - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop_rate)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, W, N, D) of W windows, additive mask (W, N, N) -> (B, W, N, D)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # (3, B, W, M, N, d)
        bias = relative_bias(self.relative_position_bias_table, self.relative_position_index)
        # The bias is the same for all windows, the mask for all images: neither is repeated.
        if mask is None:
            q, k, v = qkv.flatten(1, 2)  # each (B * W, M, N, d)
        else:
            q, k, v = qkv.flatten(2, 3)  # each (B, W * M, N, d)
            bias = (mask[:, None] + bias).flatten(0, 1)  # (W * M, N, N)
        dropout = self.attn_drop_rate if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias[None].to(q.dtype), dropout_p=dropout, scale=self.scale
        )
        attended = attended.reshape(qkv.shape[1:]).transpose(2, 3)  # (B, W, N, M, d)
        if is_exporting():  # ONNX's attention has another order in memory, unfit for a view
            attended = attended.clone(memory_format=torch.contiguous_format)
        return self.proj_drop(self.proj(attended.flatten(3)))


class PatchMerging(nn.Module):
    """(B, h, w, D) -> (B, h / 2, w / 2, 2D), rounded up: 2x2 neighbours become one token."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x.shape[1], int):
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, h, row, w, column, D)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # (B, h, w, 4D), first both of column 0
        return self.reduction(self.norm(x))


def shift_mask(height: int, width: int, size: int, shift: int, device: torch.device) -> Tensor:
    """(W, N, N): -100 between tokens that only the cyclic shift has brought into one window."""
    sides = height + -height % size, width + -width % size
    rows, columns = (torch.arange(side, device=device) >= side - shift for side in sides)
    region = rows[:, None] * 2 + columns  # (h, w)
    region = to_windows(region[None, :, :, None], (size, size))[0, :, :, 0]  # (W, N)
    return (region[:, :, None] != region[:, None]) * -100.0


def relative_position_index(size: int) -> Tensor:
    """(N, N): which row of the bias table belongs to two tokens of a window."""
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row + size - 1
    right = column[:, None] - column + size - 1
    return down * (2 * size - 1) + right


def _stage_names(embed_dim, depths, num_heads, out_features) -> list[str]:
    """The names of the stages, up to the last one in `out_features`."""
    names = [f"res{i + 2}" for i in range(len(depths))]
    if not out_features or not set(out_features) <= set(names):
        raise ValueError(
            f"MODEL.SWIN.OUT_FEATURES must be some of {', '.join(names)}, got {list(out_features)}"
        )
    if len(num_heads) != len(depths):
        raise ValueError(
            f"MODEL.SWIN.NUM_HEADS must have one number per stage as MODEL.SWIN.DEPTHS has, got "
            f"{list(num_heads)} and {list(depths)}"
        )
    for i, heads in enumerate(num_heads):
        if embed_dim * 2**i % heads:
            raise ValueError(
                f"MODEL.SWIN.NUM_HEADS: {heads} heads cannot share the {embed_dim * 2**i} channels "
                f"of {names[i]}; choose a divisor, or change MODEL.SWIN.EMBED_DIM"
            )
    return names[: max(names.index(name) for name in out_features) + 1]
