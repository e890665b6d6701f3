"""Semantic segmentation by a backbone and one head."""

import torch
from torch import Tensor, nn

from ...config import configurable
from ...layers import ShapeSpec
from ...structures import ImageList
from ...utils.registry import Registry
from ..backbone import Backbone, build_backbone
from ..lookup import find_registered
from ..postprocessing import sem_seg_postprocess
from .build import META_ARCH_REGISTRY

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = "Heads: called with (cfg, feature name -> ShapeSpec)."


def build_sem_seg_head(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head that MODEL.SEM_SEG_HEAD.NAME says."""
    name = cfg.MODEL.SEM_SEG_HEAD.NAME
    head = find_registered(SEM_SEG_HEADS_REGISTRY, "MODEL.SEM_SEG_HEAD.NAME", name)
    return head(cfg, input_shape)


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(nn.Module):
    """A backbone, and a head: (features, labels or None) -> (scores (N, C, H, W), losses)."""

    @configurable
    def __init__(
        self, *, backbone: Backbone, sem_seg_head: nn.Module,
        pixel_mean: tuple[float, ...], pixel_std: tuple[float, ...],
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training; else per image {"sem_seg": (C, height, width) scores}.

        Each input has "image" (C, H, W), in training "sem_seg" (H, W), and, where the result
        shall have another size than the image, "height" and "width".
        """
        images = [x["image"].to(self.device) for x in batched_inputs]
        images = self._batch([(image - self.pixel_mean) / self.pixel_std for image in images])
        features = self.backbone(images.tensor)
        labels = None
        if "sem_seg" in batched_inputs[0]:
            labels = [x["sem_seg"].to(self.device) for x in batched_inputs]
            labels = self._batch(labels, self.sem_seg_head.ignore_value).tensor
        scores, losses = self.sem_seg_head(features, labels)
        if self.training:
            return losses
        results = []
        for score, x, size in zip(scores, batched_inputs, images.image_sizes, strict=True):
            height, width = x.get("height", size[0]), x.get("width", size[1])
            results.append({"sem_seg": sem_seg_postprocess(score, size, height, width)})
        return results

    def _batch(self, tensors: list[Tensor], pad_value: float = 0.0) -> ImageList:
        divisor, constraints = self.backbone.size_divisibility, self.backbone.padding_constraints
        return ImageList.from_tensors(tensors, divisor, pad_value, constraints)
