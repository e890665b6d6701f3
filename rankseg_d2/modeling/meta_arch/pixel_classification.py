"""Pixel classifiers: each pixel gets the class whose embedding is most similar to its feature."""

from dataclasses import replace
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor
from torch.nn import functional as F

from ...checkpoints import Rows
from ...ranking import Ranking
from ..clips import Clips, pad_to_one_size, to_device
from ..outputs import PixelPredictions
from ..results import Sizes, pixel_result
from .base import Segmentation


class PixelClassifier(Segmentation):
    """A backbone and a head that gives features of pixels and embeddings of classes.

    The head has `num_classes`, `ignore_value`, `loss_weight`, `stride` (of its pixels), and for
    RankSeg `token_width` and `class_width`.
    """

    switches = ("SEMANTIC_ON",)

    @configurable
    def __init__(self, **options: Any):
        super().__init__(**options)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        options = super().from_config(cfg)
        if not hasattr(options["sem_seg_head"], "token_width"):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}, which does not "
                f"classify pixels, as {cls.__name__} does; set it to PerPixelBaselineHead, or "
                "MODEL.META_ARCHITECTURE to MaskFormer"
            )
        return options | {"size_divisibility": -1}  # what the backbone needs, as detectron2's

    @property
    def num_classes(self) -> int:
        return self.sem_seg_head.num_classes

    def network(self, frames: Tensor, num_frames: int = 1) -> PixelPredictions:
        return self.sem_seg_head(self.backbone(frames), num_frames, every_layer=self.training)

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> Tensor:
        """The label maps of a batch, (B, H, W) int64, padded with the ignore value."""
        for sample in batched_inputs:
            if "sem_seg" not in sample:
                raise ValueError(
                    f"{sample.get('file_name', 'a sample')} has no `sem_seg`, which a pixel "
                    "classifier learns from; set INPUT.DATASET_MAPPER_NAME to "
                    "mask_former_semantic, or call model.eval() to predict"
                )
        labels = [to_device(sample["sem_seg"], self.device).long() for sample in batched_inputs]
        return pad_to_one_size(labels, value=self.sem_seg_head.ignore_value)

    def losses(self, outputs: PixelPredictions, targets: Tensor) -> dict[str, Tensor]:
        """`loss_sem_seg` of the last layer, `_0`, `_1`, ... of those before it."""
        head = self.sem_seg_head
        logits = self.decide(outputs).logits
        names = [*(f"loss_sem_seg_{i}" for i in range(len(logits) - 1)), "loss_sem_seg"]
        return {
            name: head.loss_weight
            * cross_entropy(enlarge(layer, head.stride), targets, head.ignore_value)
            for name, layer in zip(names, logits, strict=True)
        }

    def decide(self, outputs: PixelPredictions) -> PixelPredictions:
        pixels, size = outputs.pixels.flatten(2).mT, outputs.pixels.shape[-2:]  # (B, h·w, D)
        logits = [
            self.classify(pixels, classes, outputs.bias, outputs.ranking).mT.unflatten(2, size)
            for classes in outputs.classes
        ]  # L times (B, K, h, w)
        return replace(outputs, logits=logits)

    def classify(
        self,
        pixels: Tensor,
        classes: Tensor,
        bias: Tensor | None,
        ranking: Ranking | None = None,
    ) -> Tensor:
        """Class logits of pixels: (B, h·w, D), (B or 1, C, D), (C,) -> (B, h·w, C)."""
        logits = pixels @ classes.mT
        return logits if bias is None else logits + bias

    def result(self, outputs: PixelPredictions, i: int, sizes: Sizes) -> dict:
        logits = enlarge(outputs.logits[-1][i : i + 1], self.sem_seg_head.stride)[0]
        return pixel_result(logits, outputs.image_ranking(i), sizes, self.result_options)

    def rank_features(self, outputs: PixelPredictions) -> Tensor:
        return outputs.tokens

    def class_embedding(self) -> Tensor:
        return self.sem_seg_head.class_embedding()

    def checkpoint_rows(self) -> dict[str, Rows]:
        names = ("weight", "bias", "query_feat.weight", "query_embed.weight")
        return {f"sem_seg_head.predictor.{name}": Rows("classes") for name in names}


def enlarge(logits: Tensor, stride: int) -> Tensor:
    """From the size of the head's pixels to that of the network's input, in float32."""
    return F.interpolate(logits.float(), scale_factor=stride, mode="bilinear", align_corners=False)


def cross_entropy(logits: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Mean over the pixels that are not ignored; 0 if all are."""
    height, width = targets.shape[-2:]
    logits = logits[..., :height, :width]  # the rest is padding
    losses = F.cross_entropy(logits, targets, ignore_index=ignore_value, reduction="sum")
    return losses / (targets != ignore_value).sum().clamp(min=1)
