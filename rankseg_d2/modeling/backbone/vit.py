"""The plain Vision Transformer (Dosovitskiy et al., ICLR 2021), with timm's parameter names."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import Rows
from ...position_encoding import resize_positions
from ...transformer_block import Block
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_linear

logger = logging.getLogger(__name__)

LAST = "last"  # the name of the last block's output after the norm
CLASSES = "classes"  # the name of the class embeddings after the last block


@register(BACKBONE_REGISTRY)
class VisionTransformer(Backbone):
    """Images -> feature name -> (B, D, h, w), where h is H / patch size, rounded up.

    Built from MODEL.VIT of a config, or from the arguments. The tokens are a class token, registers
    and the patches. Features are `last`, the normalised output of the last block, and `block1`,
    `block2`, ..., what other blocks give. Blocks above the last feature do not exist. With
    `num_classes`, the embeddings of so many classes go through the last block as well, and become
    the feature `classes` (B, C, D).
    """

    @configurable
    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        image_size: int = 512,
        *,
        in_channels: int = 3,
        patch_size: int = 16,
        patch_bias: bool = True,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_eps: float = 1e-6,
        layer_scale: float = 0.0,
        num_registers: int = 0,
        class_position: bool = True,
        interpolation: str = "bicubic",
        out_features: Sequence[str] = (LAST,),
        num_classes: int = 0,
        use_checkpoint: bool = False,
    ):
        """
        Args:
            image_size: side of the square images that the position embedding is made for. It is
                resized, by `interpolation`, for images of other sizes.
            num_registers: tokens beside the class token that stand for nothing (Darcet et al.,
                ICLR 2024).
            class_position: the class token has a position embedding, too.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"MODEL.VIT.NUM_HEADS: {num_heads} heads cannot share {embed_dim} channels; choose "
                "a divisor, or change MODEL.VIT.EMBED_DIM"
            )
        count = _last_block(depth, out_features)
        self._out_features = list(out_features) + [CLASSES] * bool(num_classes)
        self._out_feature_channels = dict.fromkeys(self._out_features, embed_dim)
        self._out_feature_strides = dict.fromkeys(self._out_features, patch_size)
        self.patch_size, self.grid = patch_size, max(1, image_size // patch_size)
        self.num_prefix = 1 + num_registers  # tokens before the patches
        self.class_position = class_position
        self.interpolation = interpolation
        self.use_checkpoint = use_checkpoint

        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch_size, patch_bias)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if num_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, num_registers, embed_dim))
            nn.init.trunc_normal_(self.reg_token, std=0.02)
        self.pos_embed = nn.Parameter(torch.zeros(1, class_position + self.grid**2, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, drop_rate, mlp_ratio=mlp_ratio, drop_path=rate,
                  norm_eps=norm_eps, layer_scale=layer_scale)
            for rate in rates[:count]
        )  # fmt: skip
        if LAST in out_features:
            self.norm = nn.LayerNorm(embed_dim, norm_eps)
        self.class_embedding = None
        if num_classes:
            self.class_embedding = nn.Parameter(torch.zeros(1, num_classes, embed_dim))
            nn.init.trunc_normal_(self.class_embedding, std=0.02)
        self._resized_to: set[tuple[int, int]] = set()  # grids that the log has named
        self.apply(init_linear)
        if patch_bias:  # as if there were none, until it is trained or loaded
            nn.init.zeros_(self.patch_embed.proj.bias)
        for embedding in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        vit = cfg.MODEL.VIT
        return {
            "embed_dim": vit.EMBED_DIM,
            "depth": vit.DEPTH,
            "num_heads": vit.NUM_HEADS,
            "image_size": vit.IMAGE_SIZE,
            "in_channels": input_shape.channels,
            "patch_size": vit.PATCH_SIZE,
            "patch_bias": vit.PATCH_BIAS,
            "mlp_ratio": vit.MLP_RATIO,
            "drop_rate": vit.DROP_RATE,
            "drop_path_rate": vit.DROP_PATH_RATE,
            "norm_eps": vit.NORM_EPS,
            "layer_scale": vit.LAYER_SCALE,
            "num_registers": vit.REGISTERS,
            "class_position": vit.CLASS_POSITION,
            "interpolation": vit.INTERPOLATION,
            "out_features": vit.OUT_FEATURES,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if vit.CLASS_EMBEDDING else 0,
            "use_checkpoint": vit.USE_CHECKPOINT,
        }

    @property
    def size_divisibility(self) -> int:
        return self.patch_size

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, size = self.embed(x)
        features = {}
        for number, block in enumerate(self.blocks, 1):
            if number == len(self.blocks) and self.class_embedding is not None:
                x = torch.cat([x, self.class_embedding.expand(x.shape[0], -1, -1)], dim=1)
            x = self.run_block(block, x)
            if f"block{number}" in self._out_features:
                features[f"block{number}"] = self.as_map(x, size)
        if LAST in self._out_features:
            x = self.norm(x)
            features[LAST] = self.as_map(x, size)
        if self.class_embedding is not None:
            features[CLASSES] = x[:, self.num_prefix + size[0] * size[1] :]
        return features

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The tokens before the first block, (B, P+N, D), and the grid (h, w) of the N patches."""
        if x.dim() != 4:
            raise ValueError(f"a ViT takes images (B, C, H, W), not {tuple(x.shape)}")
        x = self.patch_embed(x)  # (B, h, w, D)
        size = (x.shape[1], x.shape[2])
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        x = x + self.positions(size)  # (B, 1+N, D)
        if self.num_prefix > 1:
            registers = self.reg_token.expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)  # (B, P+N, D)
        return self.pos_drop(x), size

    def run_block(self, block: nn.Module, *inputs: Any) -> Tensor:
        """block(*inputs), in training with gradient checkpointing if it is switched on."""
        return run_layer(block, *inputs, use_checkpoint=self.use_checkpoint and self.training)

    def as_map(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The patches of tokens (B, P+N+C, D) as a map (B, D, h, w)."""
        return x[:, self.num_prefix :][:, : size[0] * size[1]].mT.unflatten(2, size)

    def positions(self, size: tuple[int, int]) -> Tensor:
        """The position embedding of a class token and a grid of patches: (1, 1+N, D)."""
        positions = self._grid_positions(size)
        return positions if self.class_position else F.pad(positions, (0, 0, 1, 0))

    def _grid_positions(self, size: tuple[int, int]) -> Tensor:
        # A size that torch.export traces is a symbol, which is not compared: it would be fixed.
        if all(isinstance(side, int) for side in size) and size == (self.grid, self.grid):
            return self.pos_embed
        if not torch.compiler.is_compiling() and size not in self._resized_to:
            self._resized_to.add(size)
            logger.info(
                "the position embedding of %d x %d patches is resized to %d x %d",
                self.grid, self.grid, *size,
            )  # fmt: skip
        return resize_positions(self.pos_embed, size, self.interpolation, int(self.class_position))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay."""
        return {"cls_token", "reg_token", "pos_embed"}

    def layers_above(self) -> dict[str, int]:
        """For each parameter the number of blocks above its own, for layer-wise decay.

        Parameters before the first block count as the first, those after the last as the last.
        """
        last = len(self.blocks) - 1
        return {name: last - _block_of(name, last) for name, _ in self.named_parameters()}

    def checkpoint_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for positions or classes, by name."""
        size, others = (self.grid, self.grid), int(self.class_position)
        resize = partial(resize_positions, size=size, others=others)
        rows = {"pos_embed": Rows("positions", dim=1, resize=resize)}
        resize = partial(resize_patches, side=self.patch_size)
        rows["patch_embed.proj.weight"] = Rows("pixels of a patch's side", dim=2, resize=resize)
        if self.class_embedding is not None:
            rows["class_embedding"] = Rows("classes", dim=1)
        return rows


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, h, w, D): one token per patch; the last ones are padded with zeros."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: int, bias: bool):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.proj(x).permute(0, 2, 3, 1)


def resize_patches(weight: Tensor, side: int) -> Tensor:
    """Filters (D, C, p, p) for patches of another side, which give resized patches the same tokens.

    Or nearly the same, where the patches are made smaller (FlexiViT, CVPR 2023).
    """
    old = weight.shape[-1]
    pixels = torch.eye(old**2, dtype=torch.float64).unflatten(1, (1, old, old))  # one per image
    resized = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1))  # (side², old²)
    filters = weight.double().flatten(2) @ inverse.mT  # (D, C, side²)
    return filters.to(weight.dtype).unflatten(2, (side, side))


def _last_block(depth: int, out_features: Sequence[str]) -> int:
    """The number of blocks that the features need."""
    names = [*(f"block{number}" for number in range(1, depth + 1)), LAST]
    if not out_features or not set(out_features) <= set(names):
        raise ValueError(
            f"MODEL.VIT.OUT_FEATURES must be some of block1, ..., block{depth} and {LAST}; got "
            f"{list(out_features)}"
        )
    return min(depth, 1 + max(names.index(name) for name in out_features))


def _block_of(name: str, last: int) -> int:
    """The block that a parameter counts as."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.partition(".")[0])
    return 0 if part in ("cls_token", "reg_token", "pos_embed", "patch_embed") else last
