"""SeMask (Jain et al., ICCVW 2023): a Swin Transformer whose stages end in semantic attention."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import Rows
from ...dtypes import at_least_float
from ..clips import NO_CLASS
from ..gradient_checkpointing import run_layer
from ..losses.pixels import cross_entropy
from ..outputs import CLASS_LOGITS
from ..registering import register
from .swin import D2SwinTransformer
from .windows import cropped, from_windows, padded, to_windows, whole_windows

_DROPOUT = 0.1  # of what the attention adds
_CLASS_LAYERS = ("mlp_cls_q", "mlp_cls_k")  # their rows stand for classes


@register(BACKBONE_REGISTRY)
class D2SeMaskSwinTransformer(D2SwinTransformer):
    """A Swin Transformer that, at the end of each stage, lets tokens of similar classes attend.

    Built from MODEL.SWIN and MODEL.SEMASK of a config, or from the arguments. In training the
    features have CLASS_LOGITS as well, the sum of what all stages say about the classes, for a loss
    of the backbone's own.
    """

    @configurable
    def __init__(
        self,
        num_classes: int = 150,
        semantic_window: int = 7,
        *,
        global_stages: Collection[str] = ("res5",),
        loss_weight: float = 0.4,
        **swin: Any,
    ):
        """
        Args:
            semantic_window: tokens of a side of the windows of the semantic attention.
            global_stages: stages whose semantic attention is over the whole map.
            swin: what D2SwinTransformer takes.
        """
        super().__init__(**swin)
        names = [f"res{i + 2}" for i in range(len(self.layers))]
        _check(global_stages, names)
        self.loss_weight = loss_weight
        for name, stage in zip(names, self.layers, strict=True):
            dim = self._out_feature_channels[name]
            window = None if name in global_stages else semantic_window
            stage.semantic_layer = SemanticLayer(dim, num_classes, window)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        semask = cfg.MODEL.SEMASK
        return super().from_config(cfg, input_shape) | {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "semantic_window": semask.WINDOW_SIZE,
            "global_stages": semask.GLOBAL_STAGES,
            "loss_weight": semask.WEIGHT,
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, scores = self.with_scores(x)
        return features | {CLASS_LOGITS: summed(scores)} if self.training else features

    def with_scores(self, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The features by name, and the class scores of each stage, (B, C, h, w)."""
        features = super().forward(x)
        return features, [features.pop(_scores_of(i)) for i in range(len(self.layers))]

    def run_stage(self, i: int, x: Tensor, features: dict[str, Tensor]) -> Tensor:
        x = super().run_stage(i, x, features)
        use_checkpoint = self.use_checkpoint and self.training
        x, scores = run_layer(self.layers[i].semantic_layer, x, use_checkpoint=use_checkpoint)
        features[_scores_of(i)] = scores.permute(0, 3, 1, 2)  # (B, C, h, w)
        return x

    def losses(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`loss_cate`, weighted: of CLASS_LOGITS and the classes of the pixels (B, H, W)."""
        size = [side * self.patch_embed.patch_size for side in logits.shape[-2:]]
        logits = _enlarged(at_least_float(logits), size)
        return {"loss_cate": self.loss_weight * cross_entropy(logits, labels, NO_CLASS)}

    def checkpoint_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for classes, by name."""
        layer = "layers.{}.semantic_layer.class_injection.0.{}.{}"
        return {
            layer.format(i, part, kind): Rows("classes")
            for i in range(len(self.layers))
            for part in _CLASS_LAYERS
            for kind in ("weight", "bias")
        }


class SemanticLayer(nn.Module):
    """A norm and semantic attention: (B, h, w, D) -> (B, h, w, D), class scores (B, h, w, C)."""

    def __init__(self, dim: int, num_classes: int, window_size: int | None):
        """`window_size`: None: one window over the whole map."""
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim)
        self.class_injection = nn.ModuleList([SemanticAttention(dim, num_classes)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (attention,), size = self.class_injection, x.shape[1:3]
        x = self.norm1(x)
        if self.window_size is None:
            found = attention(x.flatten(1, 2)[:, None])  # each (B, 1, N, channels)
            return tuple(one[:, 0].unflatten(1, size) for one in found)
        side = self.window_size
        window = side, side
        x = padded(x, tuple(whole_windows(length, side) for length in size))
        found = attention(to_windows(x, window))  # each (B, W, N, channels)
        found = [from_windows(one, window, x.shape[2]) for one in found]
        return tuple(cropped(one, size) for one in found)


class SemanticAttention(nn.Module):
    """Each token reads the tokens whose class scores are similar to its own."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.mlp_cls_q = nn.Linear(dim, num_classes)
        self.mlp_cls_k = nn.Linear(dim, num_classes)
        self.mlp_v = nn.Linear(dim, dim)
        self.mlp_res = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(_DROPOUT)
        self.gamma = nn.Parameter(torch.zeros(1))
        for linear in (self.mlp_cls_q, self.mlp_cls_k, self.mlp_v):
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.mlp_res.weight)
        nn.init.zeros_(self.mlp_res.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, W, N, D) of W windows -> the same, and class scores (B, W, N, C)."""
        scores = self.mlp_cls_q(x)
        read = F.scaled_dot_product_attention(
            scores, self.mlp_cls_k(x), self.mlp_v(x), scale=1.0
        )
        return x + self.gamma * self.proj_drop(self.mlp_res(read)), scores


def summed(scores: Sequence[Tensor]) -> Tensor:
    """The sum, as fine as the first, of maps (B, C, h, w), each half as fine as the one before."""
    total = scores[0]
    for i, x in enumerate(scores):
        for _ in range(i):
            x = _enlarged(x, [2 * side for side in x.shape[-2:]])
        if i:
            total = total + _enlarged(x, total.shape[-2:])
    return total


def _enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def _scores_of(i: int) -> str:
    """The name of the class scores of a stage, among the features."""
    return f"scores{i}"


def _check(global_stages: Collection[str], names: list[str]) -> None:
    unknown = [name for name in global_stages if name not in names]
    if unknown:
        raise ValueError(
            f"MODEL.SEMASK.GLOBAL_STAGES has {unknown[0]}, which is not one of the stages that are "
            f"built: {', '.join(names)}"
        )
