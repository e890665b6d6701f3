"""BEiT (Bao et al., ICLR 2022) with a feature pyramid, under its authors' parameter names."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import Rows
from ...position_encoding import resize_offsets
from ...transformer_block import Mlp
from ..attention import relative_bias
from ..drop_path import drop_path, drop_rates
from ..gradient_checkpointing import run_layer
from ..registering import register
from .initialization import init_linear
from .pyramid import STRIDES


class BEiTBlocks(Backbone):
    """A class token, patches of images of at most `img_size`, and BEiT's blocks.

    Subclasses make features of the tokens that the blocks give.
    """

    def __init__(
        self,
        img_size: Sequence[int] = (512, 512),
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        *,
        in_channels: int = 3,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        layer_scale: float = 0.1,
        drop_path_rate: float = 0.1,
        use_checkpoint: bool = False,
        num_blocks: int | None = None,
    ):
        """
        Args:
            img_size: height and width; the offsets of two patches of such an image have biases.
            num_blocks: so many of the `depth` blocks are built; None: all.
        """
        super().__init__()
        _check(img_size, patch_size, embed_dim, num_heads)
        self.grid = tuple(side // patch_size for side in img_size)
        self.patch_size = patch_size
        self.use_checkpoint = use_checkpoint

        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        (rates,) = drop_rates(drop_path_rate, [depth])
        options = {"mlp_ratio": mlp_ratio, "layer_scale": layer_scale}
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, self.grid, drop_path_rate=rate, **options)
            for rate in rates[:num_blocks]
        )
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        beit = cfg.MODEL.BEIT
        return {
            "img_size": beit.IMG_SIZE,
            "embed_dim": beit.EMBED_DIM,
            "depth": beit.DEPTH,
            "num_heads": beit.NUM_HEADS,
            "in_channels": input_shape.channels,
            "patch_size": beit.PATCH_SIZE,
            "mlp_ratio": beit.MLP_RATIO,
            "layer_scale": beit.LAYER_SCALE,
            "drop_path_rate": beit.DROP_PATH_RATE,
            "use_checkpoint": beit.USE_CHECKPOINT,
        }

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int], Tensor]:
        """The tokens (B, 1+N, D) before the first block, the grid, and `offset_index` of it."""
        if x.dim() != 4:
            raise ValueError(f"BEiT takes images (B, C, H, W), not {tuple(x.shape)}")
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.patch_embed.proj(x)  # (B, D, h, w)
        size = (x.shape[2], x.shape[3])
        self._check_size(height, width, size)
        x = x.flatten(2).mT  # (B, N, D)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)  # (B, 1+N, D)
        return x, size, offset_index(size, self.grid, x.device)

    def run_block(self, block: nn.Module, x: Tensor, index: Tensor) -> Tensor:
        """The tokens after a block, in training with gradient checkpointing if it is on."""
        return run_layer(block, x, index, use_checkpoint=self.use_checkpoint and self.training)

    def _check_size(self, height: int, width: int, size: tuple[int, int]) -> None:
        if size[0] > self.grid[0] or size[1] > self.grid[1]:
            largest = [side * self.patch_size for side in self.grid]
            raise ValueError(
                f"this BEiT takes images of at most {largest[0]}x{largest[1]}, got "
                f"{height}x{width}; set TEST.SLIDING_WINDOW.ENABLED True with windows of SIZE "
                f"{largest}, or a larger MODEL.BEIT.IMG_SIZE, to which the weights are resized"
            )

    def no_weight_decay(self) -> set[str]:
        """Names of the vectors without weight decay that are no biases or norms."""
        ends = ("cls_token", "gamma_1", "gamma_2", "q_bias", "v_bias")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}

    def layers_above(self) -> dict[str, int]:
        """For each parameter the number of layers above its own, for layer-wise decay.

        The last block has one above it, what makes features of the tokens none, as BEiT counts.
        """
        depth = len(self.blocks)
        above = {}
        for name, _ in self.named_parameters():
            part, number = name.split(".")[:2] if "." in name else (name, "")
            above[name] = depth + 1 if part in ("cls_token", "patch_embed") else 0
            if part == "blocks":
                above[name] = depth - int(number)
        return above

    def checkpoint_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for offsets of two patches, by name."""

        def resize(value: Tensor) -> Tensor:
            return resize_offsets(value, self.grid, others=3)

        name = "blocks.{}.attn.relative_position_bias_table"
        offsets = Rows("offsets", resize=resize)
        return {name.format(i): offsets for i in range(len(self.blocks))}


@register(BACKBONE_REGISTRY)
class BEiT(BEiTBlocks):
    """Images of at most `img_size` -> feature name -> (B, D, h, w) of strides 4, 8, 16 and 32.

    Built from MODEL.BEIT of a config, or from the arguments. Each level comes from a block of its
    own: enlarged, as it is, or max pooled.
    """

    @configurable
    def __init__(
        self,
        img_size: Sequence[int] = (512, 512),
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        *,
        patch_size: int = 16,
        out_blocks: Sequence[int] = (4, 6, 8, 12),
        norm: str = "SyncBN",
        **options: Any,
    ):
        """
        Args:
            out_blocks: the blocks that give res2, ..., res5, counted from 1.
            options: what BEiTBlocks takes.
        """
        _check_levels(patch_size, depth, out_blocks)
        options |= {"patch_size": patch_size, "num_blocks": max(out_blocks)}
        super().__init__(img_size, embed_dim, depth, num_heads, **options)
        self._out_features = list(STRIDES)
        self._out_feature_channels = dict.fromkeys(STRIDES, embed_dim)
        self._out_feature_strides = {
            name: patch_size * 2**i // 4 for i, name in enumerate(STRIDES)
        }
        self.out_blocks = tuple(out_blocks)
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim, 2, stride=2),
            get_norm(norm, embed_dim),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim, embed_dim, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(embed_dim, embed_dim, 2, stride=2))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        own = {"out_blocks": cfg.MODEL.BEIT.OUT_BLOCKS, "norm": cfg.MODEL.BEIT.NORM}
        return super().from_config(cfg, input_shape) | own

    @property
    def size_divisibility(self) -> int:
        return self.patch_size

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, size, index = self.embed(x)
        maps = {}
        for number, block in enumerate(self.blocks, start=1):
            x = self.run_block(block, x, index)
            if number in self.out_blocks:
                maps[number] = x[:, 1:].mT.unflatten(2, size)  # (B, D, h, w)
        maps = [maps[number].contiguous() for number in self.out_blocks]
        half = tuple(min(2, side) for side in size)
        maps = [self.fpn1(maps[0]), self.fpn2(maps[1]), maps[2], F.max_pool2d(maps[3], half)]
        return dict(zip(STRIDES, maps, strict=True))


class Block(nn.Module):
    """Attention and an MLP, each after a norm, scaled by channel, and beside a shortcut."""

    def __init__(self, dim, num_heads, grid, *, drop_path_rate, mlp_ratio, layer_scale):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(dim, 1e-6)
        self.attn = Attention(dim, num_heads, grid)
        self.norm2 = nn.LayerNorm(dim, 1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), 0.0)
        self.gamma_1 = nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.gamma_2 = nn.Parameter(torch.full((dim,), float(layer_scale)))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        rate, training = self.drop_path_rate, self.training
        x = x + drop_path(self.gamma_1 * self.attn(self.norm1(x), index), rate, training)
        return x + drop_path(self.gamma_2 * self.mlp(self.norm2(x)), rate, training)


class Attention(nn.Module):
    """Self-attention with a bias per head and offset, and biases of queries and values alone."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int]):
        super().__init__()
        self.num_heads = num_heads
        offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        # The last three rows: class token to patches, patches to class token, itself.
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets + 3, num_heads))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Tokens (B, N, D), rows of the table (N, N) -> (B, N, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, M, N, d)
        bias = relative_bias(self.relative_position_bias_table, index)  # (M, N, N)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        return self.proj(read.transpose(1, 2).flatten(2))


def offset_index(
    size: tuple[int, int], grid: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """(1+N, 1+N): the row of the table of `grid` for two of the tokens of (h, w) patches."""
    row, column = torch.meshgrid(
        torch.arange(size[0], device=device), torch.arange(size[1], device=device), indexing="ij"
    )
    row, column = row.flatten(), column.flatten()  # (N,)
    down = row[:, None] - row + grid[0] - 1
    right = column[:, None] - column + grid[1] - 1
    index = F.pad(down * (2 * grid[1] - 1) + right, (1, 0, 1, 0))
    offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    index[0, :], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
    return index


def _check(img_size, patch_size, embed_dim, num_heads) -> None:
    if any(side < patch_size or side % patch_size for side in img_size):
        raise ValueError(
            f"MODEL.BEIT.IMG_SIZE must be multiples of MODEL.BEIT.PATCH_SIZE, {patch_size}; got "
            f"{list(img_size)}"
        )
    if embed_dim % num_heads:
        raise ValueError(
            f"MODEL.BEIT.NUM_HEADS: {num_heads} heads cannot share {embed_dim} channels; choose a "
            "divisor, or change MODEL.BEIT.EMBED_DIM"
        )


def _check_levels(patch_size, depth, out_blocks) -> None:
    if patch_size % 4:
        raise ValueError(f"MODEL.BEIT.PATCH_SIZE must be a multiple of 4; got {patch_size}")
    if len(out_blocks) != len(STRIDES) or not all(1 <= number <= depth for number in out_blocks):
        raise ValueError(
            f"MODEL.BEIT.OUT_BLOCKS must be four blocks of 1 to {depth}, MODEL.BEIT.DEPTH, for "
            f"{', '.join(STRIDES)}; got {list(out_blocks)}"
        )
