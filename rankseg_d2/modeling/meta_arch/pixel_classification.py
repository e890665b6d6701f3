"""Pixel classifiers: each pixel gets the class whose embedding is most similar to its feature."""

from dataclasses import replace
from typing import Any, NamedTuple

from detectron2.config import CfgNode, configurable
from torch import Tensor
from torch.nn import functional as F

from ...checkpoints import Rows
from ...dtypes import at_least_float
from ...ranking import Ranking, multi_hot
from ..clips import NO_CLASS, Clips, pad_to_one_size, to_device
from ..losses.pixels import cross_entropy
from ..outputs import CLASS_LOGITS, PixelPredictions
from ..pixel_heads.head import PixelHead
from ..results import Sizes, pixel_result
from ..results.resizing import resize_classes
from .base import Segmentation


class PixelTargets(NamedTuple):
    """The ground truth of a batch."""

    labels: Tensor  # (B, H, W) int64 that the classifier learns: classes, or with RankSeg ranks
    classes: Tensor  # (B, H, W) int64


class PixelClassifier(Segmentation):
    """A backbone and a PixelHead, which gives features of pixels and embeddings of classes."""

    sem_seg_head: PixelHead

    switches = ("SEMANTIC_ON",)

    @configurable
    def __init__(self, **options: Any):
        super().__init__(**options)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        options = super().from_config(cfg)
        if not isinstance(options["sem_seg_head"], PixelHead):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}, which does not "
                f"classify pixels, as {cls.__name__} does; set it to PerPixelBaselineHead, or "
                "MODEL.META_ARCHITECTURE to MaskFormer"
            )
        _check_ignore_value(cfg.MODEL.SEM_SEG_HEAD)
        # Padding is what the backbone needs, as detectron2's; none if the model takes any size.
        any_size = all(getattr(options[p], "any_size", False) for p in ("backbone", "sem_seg_head"))
        return options | {"size_divisibility": 1 if any_size else -1}

    @property
    def num_classes(self) -> int:
        return self.sem_seg_head.num_classes

    def network(self, frames: Tensor, num_frames: int = 1) -> PixelPredictions:
        features = self.backbone(frames)
        outputs = self.sem_seg_head(features, num_frames, every_layer=self.training)
        outputs = replace(outputs, backbone_logits=features.get(CLASS_LOGITS))
        if self.training and self.sem_seg_head.auxiliary is not None:
            outputs = replace(outputs, auxiliary=self.sem_seg_head.auxiliary(features))
        return outputs

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> PixelTargets:
        """The label maps of a batch, padded with the ignore value."""
        for sample in batched_inputs:
            if "sem_seg" not in sample:
                raise ValueError(
                    f"{sample.get('file_name', 'a sample')} has no `sem_seg`, which a pixel "
                    "classifier learns from; set INPUT.DATASET_MAPPER_NAME to "
                    "mask_former_semantic, or call model.eval() to predict"
                )
            _check_labels(sample, self.num_classes, self.sem_seg_head.ignore_value)
        labels = [to_device(sample["sem_seg"], self.device).long() for sample in batched_inputs]
        labels = pad_to_one_size(labels, value=self.sem_seg_head.ignore_value)
        return PixelTargets(labels, labels)

    def label_maps(self, targets: PixelTargets) -> Tensor:
        ignored = targets.classes == self.sem_seg_head.ignore_value
        return targets.classes.masked_fill(ignored, NO_CLASS)

    def losses(self, outputs: PixelPredictions, targets: PixelTargets) -> dict[str, Tensor]:
        """`loss_sem_seg` of the last layer, `_0`, `_1`, ... of those before it.

        And `loss_aux` of an auxiliary head, `loss_presence` of which classes are present.
        """
        head = self.sem_seg_head
        logits = self.decide(outputs).logits
        size = self.map_size(logits[-1], targets.labels.shape[-2:])
        names = [*(f"loss_sem_seg_{i}" for i in range(len(logits) - 1)), "loss_sem_seg"]
        losses = {
            name: head.loss_weight * self.pixel_loss(layer, targets.labels, size)
            for name, layer in zip(names, logits, strict=True)
        }
        if outputs.auxiliary is not None:
            loss = self.pixel_loss(outputs.auxiliary, targets.classes, size)
            losses["loss_aux"] = head.auxiliary.weight * loss
        if outputs.presence is not None:
            present = multi_hot(targets.classes, self.num_classes).to(outputs.presence.device)
            loss = F.binary_cross_entropy_with_logits(outputs.presence.float(), present.float())
            losses["loss_presence"] = head.presence_weight * loss
        return losses

    def map_size(self, logits: Tensor, image_size: tuple[int, int]) -> tuple[int, int]:
        """The size to which maps (..., h, w) are enlarged: the image's, or that with padding."""
        if self.sem_seg_head.stretch:
            return tuple(image_size)
        return tuple(self.sem_seg_head.stride * side for side in logits.shape[-2:])

    def pixel_loss(self, logits: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Cross-entropy of logits (B, K, h, w), enlarged to `size`, and labels (B, H, W)."""
        head = self.sem_seg_head
        logits, labels = head.compared(resize_classes(at_least_float(logits), size), labels)
        return cross_entropy(logits, labels, head.ignore_value, head.average_all)

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
        return self.sem_seg_head.classify(pixels, classes, bias)

    def result(self, outputs: PixelPredictions, i: int, sizes: Sizes) -> dict:
        logits = at_least_float(outputs.logits[-1][i : i + 1])  # (1, K, h, w)
        logits = self.image_part(logits, sizes.image)
        logits = resize_classes(logits, self.map_size(logits, sizes.image))[0]
        return pixel_result(logits, outputs.image_ranking(i), sizes, self.result_options)

    def image_part(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Of maps (..., h, w) what `map_size` belongs to: with `stretch` no cell of padding."""
        if not self.sem_seg_head.stretch:
            return maps
        height, width = (-(-side // self.sem_seg_head.stride) for side in image_size)
        return maps[..., :height, :width]

    def rank_features(self, outputs: PixelPredictions) -> Tensor:
        return self.sem_seg_head.pooled(outputs.coarse)

    def class_embedding(self, outputs: PixelPredictions) -> Tensor:
        return self.sem_seg_head.shared_embedding(outputs)

    def checkpoint_rows(self) -> dict[str, Rows]:
        rows = self.sem_seg_head.class_rows()
        return super().checkpoint_rows() | {f"sem_seg_head.{name}": rows[name] for name in rows}


def _check_ignore_value(head: CfgNode) -> None:
    """Raise ValueError if the loss would ignore a class."""
    if 0 <= head.IGNORE_VALUE < head.NUM_CLASSES:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {head.IGNORE_VALUE}, which is one of the "
            f"{head.NUM_CLASSES} classes; choose a value of at least {head.NUM_CLASSES}, such as "
            "65535"
        )


def _check_labels(sample: dict, num_classes: int, ignore_value: int) -> None:
    """Raise ValueError for a label map with a value that is neither a class nor ignored."""
    labels = sample["sem_seg"].long()
    if labels.is_cuda:  # the check would wait for the device
        return
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_value)]
    if len(wrong):
        raise ValueError(
            f"{sample.get('file_name', 'a sample')} has a pixel of class {wrong[0]}, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, which allows 0 to "
            f"{num_classes - 1}, and IGNORE_VALUE is {ignore_value}; set them to those of the data "
            "set"
        )
