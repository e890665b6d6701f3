"""SegFormer's all-MLP heads (Xie et al., NeurIPS 2021): the official one and mmsegmentation's."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..outputs import PixelPredictions
from ..registering import register
from .head import PixelHead


@register(SEM_SEG_HEADS_REGISTRY)
class SegFormerHead(PixelHead):
    """Every level gets the same width by a linear layer; one more fuses all, at the finest's size.

    The fusion is linear, as enlarging a map is: each level is multiplied by its part of the fusing
    weights first, and then enlarged and added, instead of enlarged, concatenated and multiplied. So
    both linear layers of a level are one. The numbers are the same, with a third to a half of the
    model's multiply-adds, and no map that is as wide as all levels together.
    """

    order = -1  # of the levels in the fusing weights: the coarsest first

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: Sequence[str],
        width: int = 256,
        dropout: float = 0.1,
        norm: str = "SyncBN",
        **options: Any,
    ):
        """
        Args:
            in_features: names of the levels, the finest first; a multi-label head reads the last.
            width: channels of each level once it is projected, and of the result.
        """
        _check_levels(in_features, input_shape)
        levels = [input_shape[name] for name in in_features]
        super().__init__(
            stride=levels[0].stride,
            coarse_width=levels[-1].channels,
            class_width=width,
            **options,
        )
        self.in_features, self.width, self.dropout = list(in_features), width, dropout
        self.levels = nn.ModuleList(
            self.build_projection(level.channels, width, norm) for level in levels
        )
        self.fuse = Conv2d(
            len(levels) * width, width, 1, bias=False, norm=get_norm(norm, width),
            activation=F.relu_,
        )  # fmt: skip
        self.predictor = nn.Conv2d(width, self.num_classes, 1)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return super().from_config(cfg, input_shape) | {
            "input_shape": input_shape,
            "in_features": head.IN_FEATURES,
            "width": head.CONVS_DIM,
            "dropout": head.DROPOUT,
            "norm": head.NORM,
        }

    def build_projection(self, channels: int, width: int, norm: str) -> nn.Module:
        """The layer that gives a level the head's width."""
        return nn.Linear(channels, width)

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, C, h, w) by name -> pixels, classes, and the last level."""
        maps = [features[name] for name in self.in_features]
        pixels = F.dropout2d(self.fused(maps), self.dropout, self.training)
        classes = [self.class_embedding()[None]]  # (1, C, D)
        return PixelPredictions(pixels, classes, self.predictor.bias, maps[-1])

    def fused(self, maps: Sequence[Tensor]) -> Tensor:
        """The levels as one map of the finest's size: (B, D, h, w)."""
        size = maps[0].shape[-2:]
        parts = self.fuse.weight.flatten(1).split(self.width, dim=1)  # each (D, D)
        fused = None
        for x, project, part in zip(maps, self.levels, parts[:: self.order], strict=True):
            x = self.project(x, project, part)
            if fused is not None:
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            fused = x if fused is None else x.add_(fused)
        if self.fuse.norm is not None:
            fused = self.fuse.norm(fused)
        return self.fuse.activation(fused)

    def project(self, x: Tensor, projection: nn.Module, part: Tensor) -> Tensor:
        """A level, projected and times its part of the fusing weights: (B, D, h, w)."""
        return _linear(x, part @ projection.weight, part @ projection.bias)

    def class_embedding(self) -> Tensor:
        return self.predictor.weight.flatten(1)  # (C, D)


@register(SEM_SEG_HEADS_REGISTRY)
class SegFormerConvHead(SegFormerHead):
    """mmsegmentation's: each level also has a norm and a ReLU; the finest is fused first."""

    order = 1

    def build_projection(self, channels: int, width: int, norm: str) -> nn.Module:
        projection = Conv2d(
            channels, width, 1, bias=False, norm=get_norm(norm, width), activation=F.relu_
        )
        nn.init.kaiming_normal_(projection.weight, mode="fan_out", nonlinearity="relu")
        return projection

    def project(self, x: Tensor, projection: nn.Module, part: Tensor) -> Tensor:
        return _linear(projection(x), part)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same linear layer for each pixel: (B, C, h, w) -> (B, D, h, w)."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _check_levels(in_features: Sequence[str], input_shape: dict[str, ShapeSpec]) -> None:
    """Raise ValueError unless the backbone has these levels, from finer to coarser."""
    absent = [name for name in in_features if name not in input_shape]
    if absent:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES has {', '.join(absent)}, but the backbone gives "
            f"{', '.join(input_shape)}; choose some of these"
        )
    strides = [input_shape[name].stride for name in in_features]
    if strides != sorted(strides):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES must go from fine to coarse, such as res2, res3, "
            f"res4, res5; got {', '.join(in_features)}"
        )
