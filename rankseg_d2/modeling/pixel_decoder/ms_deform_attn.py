"""Mask2Former's pixel decoder: deformable attention over three scales, then one pyramid step."""

import math
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...dtypes import at_least_float, is_float16
from ...errors import unknown_name
from ...position_encoding import sine_position
from ...transformer_block import feed_forward
from ..attention import xavier_init_
from ..deformable_attention import MSDeformAttn, ScaleSizes, cell_centers
from ..gradient_checkpointing import run_layer
from ..registering import register
from ..results.resizing import resize_features
from .build import PixelFeatures, by_stride
from .fpn import NUM_SCALES, conv_norm, fill


@register(SEM_SEG_HEADS_REGISTRY)
class MSDeformAttnPixelDecoder(nn.Module):
    """Attends across scales on strides 8 to 32; the stride-4 map joins by a lateral convolution."""

    @configurable
    def __init__(
        self,
        input_shape: list[tuple[str, ShapeSpec]],
        *,
        transformer_in_features: list[str],
        conv_dim: int,
        mask_dim: int,
        norm: str,
        num_heads: int,
        num_points: int,
        num_layers: int,
        dropout: float,
        common_stride: int,
        feedforward_dim: int = 1024,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        encoded = [item for item in input_shape if item[0] in transformer_in_features]
        self.encoded_features = [name for name, _ in reversed(encoded)]  # coarse to fine
        self.input_proj = nn.ModuleList(
            _project(shape.channels, conv_dim) for _, shape in reversed(encoded)
        )
        layer = {"num_heads": num_heads, "num_points": num_points, "dropout": dropout}
        layer["feedforward_dim"] = feedforward_dim
        self.transformer = _Transformer(conv_dim, len(encoded), num_layers, use_checkpoint, **layer)
        finest = min(shape.stride for _, shape in encoded)
        lateral = input_shape[: int(math.log2(finest) - math.log2(common_stride))]
        self.lateral_features = [name for name, _ in lateral]  # fine to coarse
        for number, (_, shape) in enumerate(lateral, start=1):
            self.add_module(f"adapter_{number}", conv_norm(shape.channels, conv_dim, 1, norm))
            self.add_module(f"layer_{number}", conv_norm(conv_dim, conv_dim, 3, norm, F.relu))
        self.mask_features = fill(Conv2d(conv_dim, mask_dim, kernel_size=1))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        wanted = head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES
        for name in wanted:
            if name not in head.IN_FEATURES:
                key = "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"
                raise unknown_name(key, name, head.IN_FEATURES)
        if head.CONVS_DIM % cfg.MODEL.MASK_FORMER.NHEADS:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM, {head.CONVS_DIM}, must be a multiple of "
                f"MODEL.MASK_FORMER.NHEADS, which is {cfg.MODEL.MASK_FORMER.NHEADS}"
            )
        return {
            "input_shape": by_stride(input_shape, head.IN_FEATURES),
            "transformer_in_features": wanted,
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            # As upstream: this key decides, not DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS.
            "num_heads": cfg.MODEL.MASK_FORMER.NHEADS,
            "num_points": head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS,
            "num_layers": head.TRANSFORMER_ENC_LAYERS,
            "dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "common_stride": head.COMMON_STRIDE,
            "feedforward_dim": head.DEFORMABLE_TRANSFORMER_ENCODER_DIM_FEEDFORWARD,
            "use_checkpoint": cfg.MODEL.MASK_FORMER.USE_CHECKPOINT,
        }

    def forward(self, features: dict[str, Tensor]) -> PixelFeatures:
        """In float32 or better under autocast to float16, whose range is too small.

        Autocast to bfloat16 is as everywhere: sums of layers and sampled positions stay float32.
        """
        device = next(iter(features.values())).device
        if not is_float16(device):
            return self.decode(features)
        features = {name: at_least_float(feature) for name, feature in features.items()}
        with torch.autocast(device.type, enabled=False):
            return self.decode(features)

    def decode(self, features: dict[str, Tensor]) -> PixelFeatures:
        scales = self.transformer(
            [
                project(features[name])
                for project, name in zip(self.input_proj, self.encoded_features, strict=True)
            ]
        )
        for number in range(len(self.lateral_features), 0, -1):
            fine = features[self.lateral_features[number - 1]]
            lateral = getattr(self, f"adapter_{number}")(fine)
            coarse = resize_features(scales[-1], lateral.shape[-2:])
            scales.append(getattr(self, f"layer_{number}")(lateral + coarse))
        return PixelFeatures(self.mask_features(scales[-1]), scales[:NUM_SCALES], scales[0])


class _Transformer(nn.Module):
    """Encoder over the tokens of all scales together."""

    def __init__(self, dim, num_scales, num_layers, use_checkpoint, **layer):
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.level_embed = nn.Parameter(torch.empty(num_scales, dim))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            _EncoderLayer(dim, num_scales, **layer) for _ in range(num_layers)
        )
        nn.init.normal_(self.level_embed)

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Maps (N, D, h, w) in, maps of the same sizes out."""
        sizes = tuple(tuple(scale.shape[-2:]) for scale in scales)
        device = scales[0].device
        x = torch.cat([scale.flatten(2).transpose(1, 2) for scale in scales], 1)  # (N, S, D)
        x = at_least_float(x)
        position = torch.cat(
            [
                sine_position((1, *size), x.shape[-1], device).flatten(0, 2) + embed
                for size, embed in zip(sizes, self.level_embed, strict=True)
            ]
        )  # (S, D)
        centers = torch.cat([cell_centers(*size, device) for size in sizes])  # (S, 2)
        use_checkpoint = self.use_checkpoint and self.training
        for layer in self.encoder.layers:
            x = run_layer(layer, x, position, centers, sizes, use_checkpoint=use_checkpoint)
        maps = x.transpose(1, 2).split([height * width for height, width in sizes], 2)
        return [part.unflatten(2, size) for part, size in zip(maps, sizes, strict=True)]


class _EncoderLayer(nn.Module):
    def __init__(self, dim, num_scales, num_heads, num_points, dropout, feedforward_dim):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.self_attn = MSDeformAttn(dim, num_heads, num_scales, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        xavier_init_(self.linear1)
        xavier_init_(self.linear2)

    def forward(self, x: Tensor, position: Tensor, centers: Tensor, sizes: ScaleSizes) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x + position, x, centers, sizes)))
        y = feed_forward(x, self.linear1, F.relu, self.dropout, self.linear2)
        return self.norm2(x + self.dropout(y))


def _project(in_channels: int, conv_dim: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, conv_dim, kernel_size=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(32, conv_dim))
