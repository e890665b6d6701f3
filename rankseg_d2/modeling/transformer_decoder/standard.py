"""MaskFormer's decoder: DETR's, on one feature map."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...position_encoding import sine_position
from ..attention import MLP
from ..outputs import MaskPredictions
from ..transformer import Transformer
from .build import TRANSFORMER_DECODER_REGISTRY, shared_options
from .masked_attention import input_projection


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(nn.Module):
    """Queries attend to the whole map in every layer; each layer's output gives masks."""

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        mask_dim: int,
        transformer: nn.Module,
        enforce_input_project: bool,
        deep_supervision: bool,
    ):
        super().__init__()
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.input_proj = input_projection(in_channels, hidden_dim, enforce_input_project)
        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(
        cls, cfg: CfgNode, in_channels: int, mask_classification: bool
    ) -> dict[str, Any]:
        options = cfg.MODEL.MASK_FORMER
        return shared_options(cfg, in_channels, mask_classification) | {
            "transformer": Transformer(
                options.HIDDEN_DIM,
                options.NHEADS,
                options.DIM_FEEDFORWARD,
                options.ENC_LAYERS,
                options.DEC_LAYERS,
                options.DROPOUT,
                options.PRE_NORM,
                options.USE_CHECKPOINT,
            ),
            "deep_supervision": options.DEEP_SUPERVISION,
        }

    @property
    def num_layers(self) -> int:
        return len(self.transformer.decoder.layers)

    def forward(
        self,
        features: Tensor,
        mask_features: Tensor,
        num_frames: int,
        every_layer: bool = True,
    ) -> MaskPredictions:
        """Predict from one map (B·T, C, h, w) and the mask features (B·T, D, H/4, W/4).

        Without `every_layer` only the last prediction is made.
        """
        batch = mask_features.shape[0] // num_frames
        mask_features = mask_features.unflatten(0, (batch, num_frames))  # (B, T, D, h, w)
        memory = self.input_proj(features)  # (B·T, D, h, w)
        memory = memory.unflatten(0, (-1, num_frames)).permute(0, 1, 3, 4, 2)  # (B, T, h, w, D)
        position = sine_position(memory.shape[1:4], memory.shape[-1], memory.device)
        position = position.flatten(0, 2).to(memory.dtype)  # (T·h·w, D)
        memory = memory.flatten(1, 3)  # (B, T·h·w, D)
        if self.transformer.encoder is not None:
            memory = self.transformer.encoder(memory, position)
        query_position = self.query_embed.weight.expand(batch, -1, -1)  # (B, Q, D)
        layers = self.transformer.decoder(
            torch.zeros_like(query_position), memory, memory + position, query_position
        )
        supervised = layers if self.deep_supervision and every_layer else layers[-1:]
        queries = self.transformer.decoder.norm(torch.stack(supervised))  # (L, B, Q, D)
        masks = torch.einsum("lbqd,btdhw->lbqthw", self.mask_embed(queries), mask_features)
        return MaskPredictions(queries, list(masks), layers)
