"""VOLO, the Vision Outlooker (Yuan et al., TPAMI 2022), under its authors' parameter names."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import Rows
from ...position_encoding import resize_positions
from ...transformer_block import Block, Mlp
from ..drop_path import drop_rates
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_linear
from .pyramid import STRIDES, change_stride

# The stage that each level comes from. The authors released no segmentation model, so this is ours:
# the finer levels are the outlookers', the coarser ones those of the last two transformer stages.
_SOURCES = {"res2": 0, "res3": 0, "res4": 2, "res5": 3}
_PATCH, _TOKEN = 8, 16  # strides of the first stage, of outlookers, and of the three others


@register(BACKBONE_REGISTRY)
class VOLO(Backbone):
    """Images of any size -> feature name -> (B, channels, h, w), where h is H / stride, rounded up.

    Built from MODEL.VOLO of a config, or from the arguments; the defaults are VOLO-D1's. Its maps
    have the strides 8 and 16: res2 is enlarged by a transposed convolution, with half of the
    channels, and res5 is max pooled. Stages after the last of `out_features` are not built.
    """

    any_size = True  # without padding; `size_divisibility` is what decoders want

    @configurable
    def __init__(
        self,
        image_size: int = 224,
        embed_dims: Sequence[int] = (192, 384),
        depths: Sequence[int] = (4, 4, 8, 2),
        num_heads: Sequence[int] = (6, 12),
        *,
        in_channels: int = 3,
        stem_dim: int = 64,
        mlp_ratio: float = 3.0,
        norm: str = "SyncBN",
        drop_path_rate: float = 0.1,
        out_features: Sequence[str] = tuple(STRIDES),
        use_checkpoint: bool = False,
    ):
        """
        Args:
            image_size: side of the square images that the position embedding is made for. It is
                resized for images of other sizes.
            embed_dims: channels of the outlookers, and of the transformer stages.
            depths: blocks of the outlookers' stage, and of the three transformer stages.
            stem_dim: channels of the three convolutions before the patches.
        """
        super().__init__()
        _check(image_size, embed_dims, depths, num_heads, out_features)
        stages = 1 + max(_SOURCES[name] for name in out_features)
        self._out_features = [name for name in STRIDES if name in out_features]
        self._out_feature_strides = STRIDES
        self.use_checkpoint = use_checkpoint

        self.patch_embed = PatchEmbed(in_channels, stem_dim, embed_dims[0], norm)
        rates = drop_rates(drop_path_rate, depths)[1:]  # outlookers are never dropped
        outlookers = (Outlooker(embed_dims[0], num_heads[0], mlp_ratio) for _ in range(depths[0]))
        self.network = nn.ModuleList([nn.ModuleList(outlookers)])
        if stages > 1:
            side = image_size // _TOKEN
            self.pos_embed = nn.Parameter(torch.zeros(1, side, side, embed_dims[1]))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            self.network.append(Downsample(*embed_dims))
        for stage in rates[: stages - 1]:
            blocks = (
                Block(embed_dims[1], num_heads[1], mlp_ratio=mlp_ratio, drop_path=rate,
                      qkv_bias=False)
                for rate in stage
            )  # fmt: skip
            self.network.append(nn.ModuleList(blocks))
        self.apply(init_linear)

        self.resample, self._out_feature_channels = nn.ModuleDict(), {}
        for name in self._out_features:
            source = _SOURCES[name]
            stride = _TOKEN if source else _PATCH
            self.resample[name], self._out_feature_channels[name] = change_stride(
                embed_dims[min(source, 1)], stride, STRIDES[name]
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        volo = cfg.MODEL.VOLO
        return {
            "image_size": volo.IMAGE_SIZE,
            "embed_dims": volo.EMBED_DIMS,
            "depths": volo.DEPTHS,
            "num_heads": volo.NUM_HEADS,
            "in_channels": input_shape.channels,
            "stem_dim": volo.STEM_DIM,
            "mlp_ratio": volo.MLP_RATIO,
            "norm": volo.NORM,
            "drop_path_rate": volo.DROP_PATH_RATE,
            "out_features": volo.OUT_FEATURES,
            "use_checkpoint": volo.USE_CHECKPOINT,
        }

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.dim() != 4:
            raise ValueError(f"VOLO takes images (B, C, H, W), not {tuple(x.shape)}")
        height, width = x.shape[-2:]
        outlookers, *rest = self.network
        x = self.run(outlookers, self.patch_embed(x))  # (B, h, w, D)
        maps = [x]
        if rest:
            downsample, *stages = rest
            x = downsample(x)
            size = (x.shape[1], x.shape[2])
            x = (x + self.positions(size)).flatten(1, 2)  # (B, N, D)
            for stage in stages:
                x = self.run(stage, x)
                maps.append(x.unflatten(1, size))
        features = {}
        for name in self._out_features:
            feature = self.resample[name](maps[_SOURCES[name]].permute(0, 3, 1, 2))
            h, w = (-(-side // STRIDES[name]) for side in (height, width))
            features[name] = feature[:, :, :h, :w]  # without what stands for padding alone
        return features

    def run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """One block after the other, in training with gradient checkpointing if that is on."""
        for block in blocks:
            x = run_layer(block, x, use_checkpoint=self.use_checkpoint and self.training)
        return x

    def positions(self, size: tuple[int, int]) -> Tensor:
        """The position embedding of a grid: (1, h, w, D)."""
        if size == tuple(self.pos_embed.shape[1:3]):
            return self.pos_embed
        return _resize(self.pos_embed, size)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay."""
        return {"pos_embed"}

    def layers_above(self) -> dict[str, int]:
        """For each parameter the number of blocks above its own, for layer-wise decay.

        Parameters before the first block count as the first; position embedding and downsampling
        as the block after them. The layers that make other levels have none above them.
        """
        lengths = {str(i): len(part) for i, part in enumerate(self.network) if i != 1}
        first, count = {}, 0
        for number, length in lengths.items():
            first[number], count = count, count + length
        above = {}
        for name, _ in self.named_parameters():
            part, number, block, *_ = [*name.split("."), "", ""]
            if part == "network" and number != "1":
                index = first[number] + int(block)
            elif part in ("network", "pos_embed"):
                index = min(lengths["0"], count - 1)
            else:
                index = count - 1 if part == "resample" else 0
            above[name] = count - 1 - index
        return above

    def checkpoint_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for positions, by name."""
        if len(self.network) == 1:
            return {}
        size = tuple(self.pos_embed.shape[1:3])
        resize = partial(_resize, size=size)
        return {"pos_embed": Rows("positions of a side", dim=1, resize=resize)}


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, h, w, D): one token per 8 x 8 pixels; the last ones are zero-padded."""

    def __init__(self, in_channels: int, stem_dim: int, dim: int, norm: str):
        super().__init__()
        layers = []
        for channels, kernel, stride in ((in_channels, 7, 2), (stem_dim, 3, 1), (stem_dim, 3, 1)):
            conv = nn.Conv2d(channels, stem_dim, kernel, stride, kernel // 2, bias=False)
            layers += [conv, get_norm(norm, stem_dim), nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.proj = nn.Conv2d(stem_dim, dim, _PATCH // 2, _PATCH // 2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % _PATCH, 0, -height % _PATCH))
        return self.proj(self.conv(x)).permute(0, 2, 3, 1)


class Outlooker(nn.Module):
    """Outlook attention and an MLP, each after a norm and beside a shortcut: (B, h, w, D)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = OutlookAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class OutlookAttention(nn.Module):
    """Each token of every second row and column mixes its 3 x 3 neighbours: (B, h, w, D).

    It does so 9 times, once for the place of each neighbour, by weights that are a linear function
    of the token alone, without keys; what several windows say of one place is summed.
    """

    window = 3

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.v = nn.Linear(dim, dim, bias=False)
        self.attn = nn.Linear(dim, self.window**4 * num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        size, cells = x.shape[1:3], self.window**2
        windows = {"kernel_size": self.window, "padding": 1, "stride": 2}
        values = F.unfold(self.v(x).permute(0, 3, 1, 2), **windows)  # (B, D * 9, N)
        values = values.unflatten(1, (self.num_heads, -1, cells))
        values = values.permute(0, 1, 4, 3, 2)  # (B, M, N, 9, d)
        centres = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, ceil_mode=True)  # (B, D, h / 2, w / 2)
        weights = self.attn(centres.flatten(2).mT)  # (B, N, M * 81)
        weights = weights.unflatten(2, (self.num_heads, cells, cells)).transpose(1, 2)
        mixed = (self.scale * weights).softmax(-1) @ values  # (B, M, N, 9, d)
        mixed = mixed.permute(0, 1, 4, 3, 2).flatten(1, 3)  # (B, D * 9, N)
        return self.proj(F.fold(mixed, size, **windows).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """(B, h, w, D) -> (B, h / 2, w / 2, D'), rounded up: 2 x 2 neighbours become one token."""

    def __init__(self, dim: int, new_dim: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, new_dim, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _resize(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, s, s, D) -> (1, h, w, D)."""
    return resize_positions(embedding.flatten(1, 2), size, others=0).unflatten(1, size)


def _check(image_size, embed_dims, depths, num_heads, out_features) -> None:
    """Raise ValueError unless these describe a model."""
    if image_size < _TOKEN:
        raise ValueError(f"MODEL.VOLO.IMAGE_SIZE must be {_TOKEN} or more; got {image_size}")
    for key, values, count in (
        ("EMBED_DIMS", embed_dims, 2), ("NUM_HEADS", num_heads, 2), ("DEPTHS", depths, 4),
    ):  # fmt: skip
        if len(values) != count:
            raise ValueError(
                f"MODEL.VOLO.{key} must have {count} numbers, of the outlookers first; got "
                f"{list(values)}"
            )
    for dim, heads in zip(embed_dims, num_heads, strict=True):
        if dim % heads:
            raise ValueError(
                f"MODEL.VOLO.NUM_HEADS: {heads} heads cannot share {dim} channels; choose a "
                "divisor, or change MODEL.VOLO.EMBED_DIMS"
            )
    if not out_features or not set(out_features) <= set(STRIDES):
        raise ValueError(
            f"MODEL.VOLO.OUT_FEATURES must be some of {', '.join(STRIDES)}, got "
            f"{list(out_features)}"
        )
