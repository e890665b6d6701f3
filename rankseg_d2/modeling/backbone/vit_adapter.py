"""ViT-Adapter (Chen et al., ICLR 2023): a plain ViT, BEiT or AugReg's, that gives four levels."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..gradient_checkpointing import run_layer
from ..registering import register
from .adapter_parts import (
    NUM_LEVELS,
    Interaction,
    SpatialPrior,
    as_maps,
    as_tokens,
    grids_of,
    init_adapter_,
)
from .beit import BEiTBlocks
from .pyramid import STRIDES
from .vit import VisionTransformer

_GROUPS = 4  # of blocks, as many as there are levels
_PATCH_SIZE = 16
_COARSEST = max(STRIDES.values())


class Adapter:
    """What ViT-Adapter adds to a plain ViT, which is the class listed behind it among the bases.

    Before each quarter of the ViT's blocks its patches read three levels of tokens that begin as
    convolutions of the image, and after it these levels read the patches.
    """

    blocks: nn.ModuleList
    use_checkpoint: bool

    def add_adapter(
        self,
        dim: int,
        in_channels: int,
        *,
        conv_channels: int,
        deform_heads: int,
        num_points: int,
        value_ratio: float,
        ffn_ratio: float,
        norm: str,
        gamma: float,
        drop_path_rate: float,
    ) -> None:
        """`gamma`: the first value of the factors of what the patches read."""
        _check(dim, len(self.blocks), deform_heads, value_ratio)
        self._out_features = list(STRIDES)
        self._out_feature_channels = dict.fromkeys(STRIDES, dim)
        self._out_feature_strides = STRIDES
        attention = {"num_heads": deform_heads, "num_points": num_points}
        attention["value_dim"] = int(dim * value_ratio)
        self.level_embed = nn.Parameter(torch.zeros(NUM_LEVELS, dim))
        self.spm = SpatialPrior(in_channels, conv_channels, dim, norm)
        self.interactions = nn.ModuleList(
            Interaction(
                dim,
                attention,
                gamma=gamma,
                ffn_dim=int(dim * ffn_ratio),
                drop_path_rate=drop_path_rate,
                num_extractors=3 if i == _GROUPS - 1 else 1,
            )
            for i in range(_GROUPS)
        )
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        for number in range(1, len(STRIDES) + 1):
            self.add_module(f"norm{number}", get_norm(norm, dim))
        for module in (self.spm, self.interactions, self.up):
            init_adapter_(module)
        nn.init.normal_(self.level_embed)

    @property
    def size_divisibility(self) -> int:
        return _COARSEST

    def adapt(
        self, images: Tensor, tokens: Tensor, size: tuple[int, int], *block_inputs: Any
    ) -> dict[str, Tensor]:
        """The levels by name, from what the ViT makes of an image before its first block.

        Args:
            tokens: (B, P+N, D), of which the last N are the patches of a grid of this `size`.
            block_inputs: what a block takes beside the tokens.
        """
        finest, *maps = self.spm(images)
        sizes = tuple((x.shape[2], x.shape[3]) for x in maps)
        grids = grids_of(size, sizes, images.device)
        maps = [x + embed[:, None, None] for x, embed in zip(maps, self.level_embed, strict=True)]
        levels, steps = as_tokens(maps), []  # (B, S, D)
        length, count = len(self.blocks) // _GROUPS, size[0] * size[1]
        for i, interaction in enumerate(self.interactions):
            prefix, patches = tokens.split([tokens.shape[1] - count, count], dim=1)
            patches = self._run(interaction.injector, patches, levels, grids)
            tokens = torch.cat([prefix, patches], dim=1)
            for block in self.blocks[i * length : (i + 1) * length]:
                tokens = self._run(block, tokens, *block_inputs)
            patches = tokens[:, -count:]
            for extractor in interaction.extractors():
                levels = self._run(extractor, levels, patches, grids)
            steps.append(patches.mT.unflatten(2, size))  # (B, D, h, w)
        maps = as_maps(levels, sizes)
        return self._features([self.up(maps[0]) + finest, *maps], steps)

    def _features(self, maps: list[Tensor], steps: list[Tensor]) -> dict[str, Tensor]:
        """Each level, and with it what the ViT's patches were after a quarter of its blocks."""
        features = {}
        for number, (name, x, step) in enumerate(zip(STRIDES, maps, steps, strict=True), start=1):
            if step.shape[-2:] != x.shape[-2:]:
                step = F.interpolate(step, x.shape[-2:], mode="bilinear", align_corners=False)
            features[name] = getattr(self, f"norm{number}")(x + step)
        return features

    def _run(self, layer: nn.Module, *inputs: Any) -> Tensor:
        return run_layer(layer, *inputs, use_checkpoint=self.use_checkpoint and self.training)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: the ViT's, and the injectors' factors."""
        factors = {f"interactions.{i}.injector.gamma" for i in range(_GROUPS)}
        return super().no_weight_decay() | factors


@register(BACKBONE_REGISTRY)
class BEiTAdapter(Adapter, BEiTBlocks):
    """Images -> feature name -> (B, D, h, w) of strides 4, 8, 16 and 32, by BEiT and an adapter.

    Built from MODEL.BEIT and MODEL.VIT_ADAPTER of a config, or from the arguments. The sides of
    images are multiples of 32, and at most `img_size`.
    """

    @configurable
    def __init__(
        self,
        *,
        adapter: dict[str, Any],
        embed_dim: int = 768,
        in_channels: int = 3,
        layer_scale: float = 0.1,
        drop_path_rate: float = 0.1,
        **beit: Any,
    ):
        """`adapter`: what `adapter_options` gives; `beit`: what BEiTBlocks takes."""
        shared = {"in_channels": in_channels, "drop_path_rate": drop_path_rate}
        super().__init__(embed_dim=embed_dim, layer_scale=layer_scale, **shared, **beit)
        _check_patch("MODEL.BEIT.PATCH_SIZE", self.patch_size)
        self.add_adapter(embed_dim, gamma=layer_scale, **shared, **adapter)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return super().from_config(cfg, input_shape) | {"adapter": adapter_options(cfg)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _check_images(x)
        return self.adapt(x, *self.embed(x))


@register(BACKBONE_REGISTRY)
class ViTAdapter(Adapter, VisionTransformer):
    """Images -> feature name -> (B, D, h, w) of strides 4, 8, 16 and 32, by a ViT and an adapter.

    Built from MODEL.VIT and MODEL.VIT_ADAPTER of a config, or from the arguments. The sides of
    images are multiples of 32. The ViT has no class token.
    """

    @configurable
    def __init__(
        self,
        *,
        adapter: dict[str, Any],
        embed_dim: int = 768,
        depth: int = 12,
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        **vit: Any,
    ):
        """`adapter`: what `adapter_options` gives; `vit`: what VisionTransformer takes."""
        shared = {"in_channels": in_channels, "drop_path_rate": drop_path_rate}
        last = (f"block{depth}",)
        super().__init__(embed_dim=embed_dim, depth=depth, out_features=last, **shared, **vit)
        _check_patch("MODEL.VIT.PATCH_SIZE", self.patch_size)
        self.cls_token = None
        self.add_adapter(embed_dim, gamma=0.0, **shared, **adapter)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        if cfg.MODEL.VIT.REGISTERS or cfg.MODEL.VIT.CLASS_EMBEDDING:
            raise ValueError(
                "MODEL.BACKBONE.NAME ViTAdapter has no tokens beside the patches: set "
                "MODEL.VIT.REGISTERS 0 and MODEL.VIT.CLASS_EMBEDDING False"
            )
        options = super().from_config(cfg, input_shape)
        unused = ("out_features", "num_classes", "num_registers")
        vit = {name: value for name, value in options.items() if name not in unused}
        return vit | {"adapter": adapter_options(cfg)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _check_images(x)
        patches = self.patch_embed(x)  # (B, h, w, D)
        size = (patches.shape[1], patches.shape[2])
        patches = self.pos_drop(patches.flatten(1, 2) + self.positions(size)[:, 1:])  # (B, N, D)
        return self.adapt(x, patches, size)

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {"level_embed"}


def adapter_options(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of an adapter, from MODEL.VIT_ADAPTER."""
    options = cfg.MODEL.VIT_ADAPTER
    return {
        "conv_channels": options.CONV_CHANNELS,
        "deform_heads": options.HEADS,
        "num_points": options.POINTS,
        "value_ratio": options.VALUE_RATIO,
        "ffn_ratio": options.FFN_RATIO,
        "norm": options.NORM,
    }


def _check(dim: int, depth: int, heads: int, value_ratio: float) -> None:
    if depth % _GROUPS:
        raise ValueError(
            f"an adapter divides the ViT's blocks among {_GROUPS} levels, but there are {depth}; "
            f"set MODEL.BEIT.DEPTH or MODEL.VIT.DEPTH to a multiple of {_GROUPS}"
        )
    if int(dim * value_ratio) % heads or not int(dim * value_ratio):
        raise ValueError(
            f"MODEL.VIT_ADAPTER.HEADS: {heads} heads cannot share {dim} x {value_ratio:g} = "
            f"{int(dim * value_ratio)} channels; choose a divisor, or change "
            "MODEL.VIT_ADAPTER.VALUE_RATIO"
        )


def _check_patch(key: str, patch_size: int) -> None:
    if patch_size != _PATCH_SIZE:
        raise ValueError(f"{key} must be {_PATCH_SIZE} with an adapter; got {patch_size}")


def _check_images(images: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(f"an adapter takes images (B, C, H, W), not {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height % _COARSEST or width % _COARSEST or not height * width:
        raise ValueError(
            f"an adapter takes images whose sides are multiples of {_COARSEST}, got "
            f"{height}x{width}; set MODEL.MASK_FORMER.SIZE_DIVISIBILITY to {_COARSEST}, so that "
            "they are padded"
        )
