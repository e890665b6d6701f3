"""Segmenter's decoders (Strudel et al., ICCV 2021): heads on the last feature of a ViT."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import Rows
from ...transformer_block import Block
from ..backbone.initialization import init_linear
from ..backbone.vit import CLASSES
from ..outputs import PixelPredictions
from ..registering import register
from .encnet import ContextEncoding
from .head import PixelHead


class _SegmenterHead(PixelHead):
    """A head on one feature (B, D, h, w), the last of MODEL.SEM_SEG_HEAD.IN_FEATURES."""

    def __init__(self, *, in_feature: str, **options: Any):
        super().__init__(**options)
        self.in_feature = in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        name = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES[-1]
        if name not in input_shape:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES ends with {name}, but the backbone gives "
                f"{', '.join(input_shape)}; choose one of these"
            )
        shape = input_shape[name]
        return super().from_config(cfg, input_shape) | {
            "in_feature": name,
            "stride": shape.stride,
            "coarse_width": shape.channels,
            "class_width": shape.channels,
        }


@register(SEM_SEG_HEADS_REGISTRY)
class SegmenterLinearHead(_SegmenterHead):
    """A linear classifier of the patches."""

    @configurable
    def __init__(self, *, bias: bool = True, **options: Any):
        super().__init__(**options)
        self.predictor = nn.Linear(self.coarse_width, self.num_classes, bias)
        init_linear(self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        is_cosine = _ranks(cfg) and cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM
        return super().from_config(cfg, input_shape) | {"bias": not is_cosine}

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, D, h, w) by name -> the last one as pixels, and classes."""
        pixels, classes = features[self.in_feature], [self.class_embedding()[None]]
        return PixelPredictions(pixels, classes, self.predictor.bias, pixels)

    def class_embedding(self) -> Tensor:
        return self.predictor.weight  # (C, D)


@register(SEM_SEG_HEADS_REGISTRY)
class SegmenterMaskHead(_SegmenterHead):
    """Transformer blocks over patches and class embeddings; a logit is the cosine of the two.

    The class embeddings are the head's own, or those that come out of the backbone (OCE). An
    encoding of the whole image may weigh the patches before (EncNet).
    """

    cosine = joint = unbiased = True

    @configurable
    def __init__(
        self,
        *,
        num_blocks: int = 2,
        compared_width: int | None = None,
        dropout: float = 0.1,
        own_classes: bool = True,
        normalize: bool = True,
        encoding: ContextEncoding | None = None,
        **options: Any,
    ):
        """
        Args:
            compared_width: channels in which patches and classes are compared; None: those of the
                backbone.
            own_classes: the head has class embeddings; else the backbone gives them.
            normalize: a norm over the C logits of each patch; RankSeg has its own over the ranks.
            encoding: EncNet's, of the backbone's map; its width stays.
        """
        super().__init__(**options)
        dim = self.coarse_width
        compared_width = compared_width or dim
        self.encoding = encoding
        self.proj_dec = nn.Linear(dim, dim)
        self.cls_emb = nn.Parameter(torch.empty(1, self.num_classes, dim)) if own_classes else None
        self.blocks = nn.ModuleList(
            Block(dim, max(1, dim // 64), dropout) for _ in range(num_blocks)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Linear(dim, compared_width, bias=False)
        self.proj_classes = nn.Linear(dim, compared_width, bias=False)
        if normalize:
            self.class_norm = nn.LayerNorm(self.num_classes)
        for part in (self.proj_dec, self.blocks):
            part.apply(init_linear)
        for projection in (self.proj_patch, self.proj_classes):
            nn.init.normal_(projection.weight, std=dim**-0.5)
        if own_classes:
            nn.init.trunc_normal_(self.cls_emb, std=0.02)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        options = super().from_config(cfg, input_shape)
        width = options["coarse_width"]
        return options | {
            "encoding": ContextEncoding.from_config(cfg, width, width),
            "num_blocks": head.NUM_BLOCKS,
            "dropout": head.DROPOUT,
            "own_classes": CLASSES not in input_shape,
            "normalize": not _ranks(cfg),
        }

    def forward(
        self, features: dict[str, Tensor], num_frames: int = 1, every_layer: bool = True
    ) -> PixelPredictions:
        """Features (B, D, h, w) by name -> projected pixels, class embeddings, the last feature."""
        coarse, presence = features[self.in_feature], None
        if self.encoding is not None:
            coarse, presence = self.encoding(coarse)
        pixels = self.proj_dec(coarse.flatten(2).mT).mT.unflatten(2, coarse.shape[-2:])
        classes = features[CLASSES] if self.cls_emb is None else self.cls_emb
        return PixelPredictions(pixels, [classes], None, coarse, presence=presence)

    def shared_embedding(self, outputs: PixelPredictions) -> Tensor:
        return outputs.classes[0]

    def refine(
        self, pixels: Tensor, classes: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels (B, N, D) and classes (B, K, D), which have read each other, to be compared.

        No token reads the classes that are not `valid` (B, K).
        """
        count = pixels.shape[1]
        tokens = torch.cat([pixels, classes], dim=1)  # (B, N+K, D)
        if valid is not None:
            valid = F.pad(valid, (count, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, valid)
        tokens = self.decoder_norm(tokens)
        return self.proj_patch(tokens[:, :count]), self.proj_classes(tokens[:, count:])

    def class_rows(self) -> dict[str, Rows]:
        norm = dict.fromkeys(("class_norm.weight", "class_norm.bias"), Rows("classes"))
        return super().class_rows() | norm | {"cls_emb": Rows("classes", dim=1)}

    def no_weight_decay(self) -> set[str]:
        return set() if self.cls_emb is None else {"cls_emb"}


@register(SEM_SEG_HEADS_REGISTRY)
class SegmenterESSNetHead(SegmenterMaskHead):
    """ESSNet (Jain et al., 2021) on Segmenter: few classes compete for a pixel, in few channels.

    In training these are the pixel's own class and the best others, in inference the best ones.
    """

    @configurable
    def __init__(self, *, neighbours: int = 64, **options: Any):
        super().__init__(**options)
        if neighbours > self.num_classes:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS must be at most {self.num_classes}, the "
                f"number of classes; got {neighbours}"
            )
        self.neighbours = neighbours

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = cfg.MODEL.SEM_SEG_HEAD.ESSNET
        return super().from_config(cfg, input_shape) | {
            "compared_width": options.DIM,
            "neighbours": options.NEIGHBOURS,
        }

    def classify(self, pixels: Tensor, classes: Tensor, bias: Tensor | None) -> Tensor:
        logits = super().classify(pixels, classes, bias)  # (B, N, C)
        return logits if self.training else keep_best(logits, self.neighbours)

    def compared(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return with_best_others(logits, labels, self.neighbours, self.ignore_value)


def keep_best(logits: Tensor, count: int, low: float = -100.0) -> Tensor:
    """Logits (B, N, C) with `low` for all but the `count` best classes of each pixel."""
    best = logits.topk(count, dim=-1)
    return torch.full_like(logits, low).scatter(-1, best.indices, best.values)


def with_best_others(
    logits: Tensor, labels: Tensor, count: int, ignore_value: int
) -> tuple[Tensor, Tensor]:
    """The logits of each pixel's own class and of the best others: (B, 1+count, H, W).

    And the labels (B, H, W) among them, 0; ignored ones stay. Logits are (B, C, H, W).
    """
    height, width = labels.shape[-2:]
    logits = logits[..., :height, :width]  # the rest is padding
    ignored = labels == ignore_value
    own = labels.masked_fill(ignored, 0)[:, None]
    others = logits.scatter(1, own, -torch.inf).topk(min(count, logits.shape[1] - 1), dim=1).values
    logits = torch.cat([logits.gather(1, own), others], dim=1)
    return logits, torch.zeros_like(labels).masked_fill(ignored, ignore_value)


def _ranks(cfg: CfgNode) -> bool:
    return cfg.MODEL.RANKSEG.FLAG or cfg.MODEL.RANKSEG.USE_GT
