"""MiT, the Mix Transformer of SegFormer (Xie et al., NeurIPS 2021)."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.sources import find_table
from ..drop_path import drop_path, drop_rates
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_layer

_NAMES = ("res2", "res3", "res4", "res5")


@register(BACKBONE_REGISTRY)
class MixTransformer(Backbone):
    """Images of any size -> feature name -> (B, channels, h, w), where h is H / stride, rounded up.

    Built from MODEL.MIT of a config, or from the arguments; the defaults are MiT-B0's. Stages after
    the last of `out_features` are not built.
    """

    @configurable
    def __init__(
        self,
        embed_dims: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        *,
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.1,
        out_features: Sequence[str] = _NAMES,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        _check(embed_dims, depths, num_heads, reductions, out_features)
        names = _NAMES[: max(map(_NAMES.index, out_features)) + 1]
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_channels = dict(zip(names, embed_dims, strict=False))
        self._out_feature_strides = {name: 4 * 2**i for i, name in enumerate(names)}
        self.use_checkpoint = use_checkpoint
        self.stages = nn.ModuleList()
        for i, rates in enumerate(drop_rates(drop_path_rate, depths)[: len(names)]):
            embedding = PatchEmbed(
                in_channels if i == 0 else embed_dims[i - 1],
                embed_dims[i],
                kernel_size=7 if i == 0 else 3,
                stride=4 if i == 0 else 2,
                norm_eps=norm_eps,
            )
            block = {"reduction": reductions[i], "mlp_ratio": mlp_ratio, "norm_eps": norm_eps}
            self.stages.append(Stage(embedding, embed_dims[i], num_heads[i], rates, **block))
        self.apply(init_layer)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        mit = cfg.MODEL.MIT
        return {
            "embed_dims": mit.EMBED_DIMS,
            "depths": mit.DEPTHS,
            "num_heads": mit.NUM_HEADS,
            "reductions": mit.REDUCTIONS,
            "in_channels": input_shape.channels,
            "mlp_ratio": mit.MLP_RATIO,
            "norm_eps": mit.NORM_EPS,
            "drop_path_rate": mit.DROP_PATH_RATE,
            "out_features": mit.OUT_FEATURES,
            "use_checkpoint": mit.USE_CHECKPOINT,
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.dim() != 4:
            raise ValueError(f"a Mix Transformer takes images (B, C, H, W), not {tuple(x.shape)}")
        features = {}
        for name, stage in zip(_NAMES, self.stages, strict=False):
            # (B, D, h, w); the channels of a pixel stay together in memory, so nothing is copied
            x = stage(x, self.use_checkpoint and self.training).permute(0, 3, 1, 2)
            if name in self._out_features:
                features[name] = x
        return features

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Take the names of NVlabs' and mmsegmentation's backbones too, as they are published."""
        names = [name for name in state_dict if name.startswith(prefix)]
        weights = {name.removeprefix(prefix): state_dict.pop(name) for name in names}
        if table := find_table(weights):
            found = table.to_ours(weights)
            weights = {name.removeprefix("backbone."): value for name, value in found.items()}
        state_dict.update({f"{prefix}{name}": value for name, value in weights.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


class Stage(nn.Module):
    """Overlapping patches of a map, and blocks of them: (B, C, H, W) -> (B, h, w, D)."""

    def __init__(self, patch_embed, dim, num_heads, drop_path_rates, *, norm_eps, **block):
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, rate, norm_eps=norm_eps, **block) for rate in drop_path_rates
        )
        self.norm = nn.LayerNorm(dim, norm_eps)

    def forward(self, x: Tensor, use_checkpoint: bool = False) -> Tensor:
        x = self.patch_embed(x)  # (B, h, w, D)
        for block in self.blocks:
            x = run_layer(block, x, use_checkpoint=use_checkpoint)
        return self.norm(x)


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, h, w, D), where h is H / stride, rounded up."""

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int, norm_eps: float):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, kernel_size // 2)
        self.norm = nn.LayerNorm(dim, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention and an MLP, each after a norm and beside a shortcut: (B, h, w, D)."""

    def __init__(self, dim, num_heads, drop_path_rate, *, reduction, mlp_ratio, norm_eps):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(dim, norm_eps)
        self.attn = EfficientAttention(dim, num_heads, reduction, norm_eps)
        self.norm2 = nn.LayerNorm(dim, norm_eps)
        self.mlp = MixMlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + drop_path(self.attn(self.norm1(x)), self.drop_path_rate, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path_rate, self.training)


class EfficientAttention(nn.Module):
    """Self-attention of (B, h, w, D), whose keys and values come from a smaller map."""

    def __init__(self, dim: int, num_heads: int, reduction: int, norm_eps: float):
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.reduce = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        if self.reduction > 1:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(x, weight[:dim], bias[:dim])
            kv = F.linear(self.reduced(x), weight[dim:], bias[dim:])
        else:
            q, kv = self.qkv(x).split([dim, 2 * dim], dim=-1)
        k, v = kv.chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(*map(self.split, (q, k, v)))  # (B, M, N, d)
        return self.proj(read.transpose(1, 2).reshape(x.shape))

    def reduced(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h / r, w / r, D), rounded down, but at least 1 x 1."""
        down, right = (max(0, self.reduction - side) for side in x.shape[1:3])
        x = F.pad(x, (0, 0, 0, right, 0, down))  # maps that are smaller than the kernel
        return self.norm(self.reduce(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def split(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, M, N, d)."""
        return x.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class MixMlp(nn.Module):
    """An MLP with a 3 x 3 convolution of each channel inside, which tells positions."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dwconv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x))


def _check(embed_dims, depths, num_heads, reductions, out_features) -> None:
    """Raise ValueError unless the four lists describe four stages."""
    lists = {
        "EMBED_DIMS": embed_dims, "DEPTHS": depths, "NUM_HEADS": num_heads,
        "REDUCTIONS": reductions,
    }  # fmt: skip
    for key, values in lists.items():
        if len(values) != len(_NAMES):
            raise ValueError(
                f"MODEL.MIT.{key} must have four numbers, one for each stage; got {list(values)}"
            )
    for dim, heads, name in zip(embed_dims, num_heads, _NAMES, strict=True):
        if dim % heads:
            raise ValueError(
                f"MODEL.MIT.NUM_HEADS: {heads} heads cannot share the {dim} channels of {name}; "
                "choose a divisor, or change MODEL.MIT.EMBED_DIMS"
            )
    if not out_features or not set(out_features) <= set(_NAMES):
        raise ValueError(
            f"MODEL.MIT.OUT_FEATURES must be some of {', '.join(_NAMES)}, got {list(out_features)}"
        )
