"""Mask2Former's decoder: each query attends only within its last mask."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from torch import Tensor, nn

from ...position_encoding import sine_position
from ..attention import MLP, CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from ..gradient_checkpointing import run_layer
from ..outputs import MaskPredictions
from ..results.resizing import resize, resize_features
from .build import TRANSFORMER_DECODER_REGISTRY, shared_options

NUM_SCALES = 3


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Cross-attention within the predicted masks, one scale of the pyramid per layer in turn.

    Attributes:
        whole_masks: the masks that steer the attention are always made whole, as its authors do.
    """

    whole_masks = False

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dim_feedforward: int,
        dec_layers: int,
        pre_norm: bool,
        mask_dim: int,
        enforce_input_project: bool,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        self.use_checkpoint = use_checkpoint
        layer = {"dim": hidden_dim, "pre_norm": pre_norm}
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(num_heads=nheads, **layer) for _ in range(dec_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(num_heads=nheads, **layer) for _ in range(dec_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim=dim_feedforward, **layer) for _ in range(dec_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(NUM_SCALES, hidden_dim)
        self.input_proj = nn.ModuleList(
            input_projection(in_channels, hidden_dim, enforce_input_project)
            for _ in range(NUM_SCALES)
        )
        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, in_channels: int, mask_classification: bool
    ) -> dict[str, Any]:
        options = cfg.MODEL.MASK_FORMER
        return shared_options(cfg, in_channels, mask_classification) | {
            "nheads": options.NHEADS,
            "dim_feedforward": options.DIM_FEEDFORWARD,
            # The learnt query features make the first prediction, before any layer.
            "dec_layers": options.DEC_LAYERS - 1,
            "pre_norm": options.PRE_NORM,
            "use_checkpoint": options.USE_CHECKPOINT,
        }

    @property
    def num_layers(self) -> int:
        return len(self.transformer_ffn_layers)

    def forward(
        self,
        scales: list[Tensor],
        mask_features: Tensor,
        num_frames: int,
        every_layer: bool = True,
    ) -> MaskPredictions:
        """Predict from `scales` (B·T, D, h, w), coarse to fine, and mask features of stride 4.

        Without `every_layer` only the last prediction is made: the masks that steer the attention
        come from mask features at the scales' own sizes, for masks are linear in the features.
        """
        batch = mask_features.shape[0] // num_frames
        memories, keys = self.memories(scales, num_frames)
        sizes = [scale.shape[-2:] for scale in scales]
        features = [mask_features] * NUM_SCALES
        if not (every_layer or self.whole_masks):
            features = [resize_features(mask_features, size) for size in sizes[: self.num_layers]]
        # Each (B, T, D, h, w).
        *features, mask_features = (
            maps.unflatten(0, (batch, num_frames)) for maps in (*features, mask_features)
        )

        position = self.query_embed.weight.expand(batch, -1, -1)  # (B, Q, D)
        x = self.query_feat.weight.expand(batch, -1, -1)  # (B, Q, D)
        queries, masks, layers = [], [], []
        for number in range(self.num_layers):
            level = number % NUM_SCALES
            normed = self.decoder_norm(x)
            steering = self.predict_masks(normed, features[level])
            if every_layer:
                queries.append(normed)
                masks.append(steering)
            x = run_layer(
                self.decode_layer,
                number,
                x,
                memories[level],
                keys[level],
                position,
                outside(steering, sizes[level]),
                use_checkpoint=self.use_checkpoint and self.training,
            )
            layers.append(x)
        queries.append(self.decoder_norm(x))
        masks.append(self.predict_masks(queries[-1], mask_features))
        return MaskPredictions(torch.stack(queries), masks, layers)

    def decode_layer(
        self,
        number: int,
        x: Tensor,
        memory: Tensor,
        key: Tensor,
        position: Tensor,
        blocked: Tensor,
    ) -> Tensor:
        """Query features (B, Q, D) after one layer: cross-attention, self-attention, FFN."""
        x = self.transformer_cross_attention_layers[number](x, memory, key, position, blocked)
        x = self.transformer_self_attention_layers[number](x, position)
        return self.transformer_ffn_layers[number](x)

    def memories(self, scales: list[Tensor], num_frames: int) -> tuple[list[Tensor], list[Tensor]]:
        """Values and keys of the cross-attention, per scale: both (B, T·h·w, D)."""
        memories, keys = [], []
        for scale, project, level in zip(
            scales, self.input_proj, self.level_embed.weight, strict=True
        ):
            memory = project(scale) + level[:, None, None]  # (B·T, D, h, w)
            memory = memory.unflatten(0, (-1, num_frames)).permute(0, 1, 3, 4, 2)  # (B, T, h, w, D)
            position = sine_position(memory.shape[1:4], memory.shape[-1], memory.device)
            memory = memory.flatten(1, 3)  # (B, T·h·w, D)
            memories.append(memory)
            keys.append(memory + position.flatten(0, 2).to(memory.dtype))
        return memories, keys

    def predict_masks(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """(B, Q, D), (B, T, D, h, w) -> (B, Q, T, h, w)."""
        return torch.einsum("bqd,btdhw->bqthw", self.mask_embed(queries), mask_features)


@torch.no_grad()
def outside(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each query must not attend: (B, Q, T, h, w) -> (B, Q, T·h'·w') of that size.

    A query whose mask is empty attends everywhere.
    """
    small = resize(masks.flatten(0, 1), size)
    blocked = (small.sigmoid() < 0.5).flatten(1).unflatten(0, masks.shape[:2])
    return blocked & ~blocked.all(-1, keepdim=True)


def input_projection(in_channels: int, hidden_dim: int, enforce: bool) -> nn.Module:
    """A 1×1 convolution if the widths differ or `enforce` asks for it, else nothing."""
    if in_channels == hidden_dim and not enforce:
        return nn.Sequential()
    projection = Conv2d(in_channels, hidden_dim, kernel_size=1)
    nn.init.kaiming_uniform_(projection.weight, a=1)
    nn.init.zeros_(projection.bias)
    return projection
