"""The head of EoMT: a ViT's own last blocks are the decoder of its queries."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from .backbone import VisionTransformer
from .outputs import MaskPredictions
from .pixel_decoder.upscaling import Upscaling
from .registering import register
from .transformer_decoder.encoder_only import QueryPredictor, readable


@register(SEM_SEG_HEADS_REGISTRY)
class EoMTHead(nn.Module):
    """Images in, query features and mask logits out, through a ViT that it is given."""

    @configurable
    def __init__(self, *, pixel_decoder: nn.Module, predictor: QueryPredictor):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.META_ARCHITECTURE.endswith("EoMT"):
            raise ValueError(
                "MODEL.SEM_SEG_HEAD.NAME EoMTHead needs MODEL.META_ARCHITECTURE EoMT, not "
                f"{cfg.MODEL.META_ARCHITECTURE}"
            )
        (shape,) = input_shape.values()
        return {
            "pixel_decoder": Upscaling(shape.channels, shape.stride),
            "predictor": QueryPredictor(cfg, shape.channels),
        }

    def forward(
        self, vit: VisionTransformer, images: Tensor, every_layer: bool = True
    ) -> MaskPredictions:
        """Images (B, 3, H, W) -> predictions before each of the last blocks, and after them.

        Without `every_layer` only the last prediction is made.
        """
        predictor, first = self.predictor, len(vit.blocks) - self.predictor.num_layers
        x, size = vit.embed(images)
        for block in vit.blocks[:first]:
            x = vit.run_block(block, x)
        x = predictor.join(x)  # (B, Q+P+N, D)
        queries, masks, layers = [], [], []
        for number, block in enumerate(vit.blocks[first:]):
            valid = None
            if every_layer:
                self.predict(vit, x, size, queries, masks)
                if self.training and predictor.is_masked[number]:
                    valid = readable(masks[-1], size, x.shape[1], predictor.mask_shares[number])
            x = vit.run_block(block, x, valid)
            layers.append(x[:, : self.num_queries])
        self.predict(vit, x, size, queries, masks)
        return MaskPredictions(torch.stack(queries), masks, layers)

    @property
    def num_queries(self) -> int:
        return self.predictor.query_feat.num_embeddings

    def predict(
        self,
        vit: VisionTransformer,
        x: Tensor,
        size: tuple[int, int],
        queries: list[Tensor],
        masks: list[Tensor],
    ) -> None:
        """Append the queries of the tokens x (B, Q+P+N, D), and their masks."""
        own, tokens = vit.norm(x).tensor_split([self.num_queries], dim=1)
        features = self.pixel_decoder(vit.as_map(tokens, size))  # (B, D, H/4, W/4)
        queries.append(own)
        masks.append(self.predictor.predict_masks(own, features))
