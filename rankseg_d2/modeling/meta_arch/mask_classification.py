"""MaskFormer and Mask2Former: a set of masks, each with one class, for images and for videos."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...checkpoints import Rows
from ...ranking import Ranking
from ..clips import Clips, clip_targets, image_targets, label_map
from ..losses import build_criterion
from ..outputs import CLASS_LOGITS, MaskPredictions
from ..results import Sizes, mask_result
from ..video import VideoWindows, predict_video
from .base import Segmentation

logger = logging.getLogger(__name__)


class MaskFormer(Segmentation):
    """Predicts a set of masks, each with one class, from which all kinds of results are made."""

    switches = ("SEMANTIC_ON", "PANOPTIC_ON", "INSTANCE_ON", "ENTITY_ON", "PARSING_ON")

    @configurable
    def __init__(self, *, criterion: nn.Module, rank_layer: int = 3, **options: Any):
        """`rank_layer`: the decoder layer, from 1, whose queries a multi-label head reads."""
        super().__init__(**options)
        self.criterion = criterion
        self.rank_layer = rank_layer

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM and not cls.ranks:
            logger.warning(
                "MODEL.SEM_SEG_HEAD.USE_LAYERNORM has no effect without RankSeg; set "
                "MODEL.RANKSEG.FLAG True as well"
            )
        options = super().from_config(cfg)
        if not hasattr(getattr(options["sem_seg_head"], "predictor", None), "class_embed"):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}, which does not "
                f"classify masks, as {cls.__name__} does; set it to MaskFormerHead, or "
                "MODEL.META_ARCHITECTURE to PixelClassifier"
            )
        rank_layer = cfg.MODEL.RANKSEG.LAYER
        return options | {"criterion": build_criterion(cfg), "rank_layer": rank_layer}

    @property
    def num_classes(self) -> int:
        return len(self.criterion.empty_weight) - 1

    def network(self, frames: Tensor, num_frames: int = 1) -> MaskPredictions:
        features = self.backbone(frames)
        outputs = self.sem_seg_head(features, num_frames, every_layer=self.training)
        return replace(outputs, backbone_logits=features.get(CLASS_LOGITS))

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> list[dict]:
        """Labels (N,) and masks (N, T, H, W) of each image or clip, at the padded size."""
        return [self.targets(sample, clips.padded_size) for sample in batched_inputs]

    def targets(self, sample: dict, padded_size: tuple[int, int]) -> dict:
        return image_targets(sample, padded_size, self.num_classes, self.device)

    def label_maps(self, targets: list[dict]) -> Tensor:
        return torch.cat([label_map(target["labels"], target["masks"]) for target in targets])

    def losses(self, outputs: MaskPredictions, targets: list[dict]) -> dict[str, Tensor]:
        return self.criterion(self.decide(outputs), targets)

    def decide(self, outputs: MaskPredictions) -> MaskPredictions:
        return replace(outputs, logits=self.classify(outputs.queries, outputs.ranking))

    def classify(self, queries: Tensor, ranking: Ranking | None = None) -> Tensor:
        """Class logits of query features: (..., B, Q, D) -> (..., B, Q, C+1), no-object last."""
        return self.sem_seg_head.predictor.class_embed(queries)

    def result(self, outputs: MaskPredictions, i: int, sizes: Sizes) -> dict:
        ranking, options = outputs.image_ranking(i), self.result_options
        logits, masks = outputs.logits[-1, i], outputs.masks[-1][i]
        return mask_result(logits, masks, ranking, sizes, options, self.is_video)

    def rank_features(self, outputs: MaskPredictions) -> Tensor:
        return outputs.layers[self.rank_layer - 1]  # (B, Q, D)

    def class_embedding(self, outputs: MaskPredictions) -> Tensor:
        return self.sem_seg_head.predictor.class_embed.weight[:-1]

    def checkpoint_rows(self) -> dict[str, Rows]:
        queries, classes = Rows("queries"), Rows("classes", closed=True)
        rows = {f"query_{kind}.weight": queries for kind in ("feat", "embed")}
        rows |= {f"class_embed.{kind}": classes for kind in ("weight", "bias")}
        rows = {f"sem_seg_head.predictor.{name}": value for name, value in rows.items()}
        return super().checkpoint_rows() | rows


class VideoMaskFormer(MaskFormer):
    """MaskFormer for clips: only the input of frames and the output of results differ.

    With `windows` a video may have any length. Each label map then goes to the `label_callbacks`
    as soon as it is made: callback(sample, number of the frame, labels (H, W)).
    """

    switches = ("SEMANTIC_ON", "PANOPTIC_ON", "INSTANCE_ON")
    is_video = True

    @configurable
    def __init__(self, *, windows: VideoWindows | None = None, **options: Any):
        super().__init__(**options)
        self.windows = windows
        self.label_callbacks: list[Callable[[dict, int, np.ndarray], None]] = []

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return super().from_config(cfg) | {"windows": VideoWindows.from_config(cfg)}

    def predict(self, batched_inputs: list[dict]) -> list[dict]:
        if self.windows is None:
            return super().predict(batched_inputs)
        with torch.no_grad():
            return [predict_video(self, sample, self.windows) for sample in batched_inputs]

    def frames(self, sample: dict) -> list[Tensor]:
        return list(sample["image"])

    def targets(self, sample: dict, padded_size: tuple[int, int]) -> dict:
        return clip_targets(sample, padded_size, self.num_classes, self.device)
