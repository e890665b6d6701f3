"""START HERE: MaskFormer and Mask2Former, for images and for videos.

`MaskFormer.forward` is the only forward of all meta-architectures: its steps are overridden where
videos (here) or RankSeg (`rankseg.py`) differ.
"""

import logging
from dataclasses import replace

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from torch import Tensor, nn

from ..backbone import check_backbone
from ..clips import Clips, batch_clips, clip_targets, image_targets, output_size
from ..losses.criterion import build_criterion
from ..registering import register
from ..results.options import ResultOptions, Shape, image_result, video_result
from ..transformer_decoder import Predictions
from ..video.whole_video import segment_video
from ..video.windows import VideoWindows

logger = logging.getLogger(__name__)


@register(META_ARCH_REGISTRY)
class MaskFormer(nn.Module):
    """Predicts a set of masks, each with one class: every kind of segmentation follows from it."""

    ranked: type | None = None  # the same model with RankSeg, which a config can switch on
    uses_oracle = False  # needs to be told which categories there are

    def __new__(cls, cfg=None, *args, **kwargs):
        """A config that names this class and sets MODEL.RANKSEG.FLAG means the RankSeg class."""
        options = cfg.MODEL.RANKSEG if isinstance(cfg, CfgNode) else None
        ranks = options is not None and (options.FLAG or options.USE_GT)
        return super().__new__(cls.ranked if ranks and cls.ranked else cls)

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: nn.Module,
        results: ResultOptions,
        size_divisibility: int,
        pixel_mean: list[float],
        pixel_std: list[float],
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.results = results
        # Without a size of its own, the batch is padded as the backbone needs it.
        self.size_divisibility = (
            backbone.size_divisibility if size_divisibility < 0 else size_divisibility
        )
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg):
        check_backbone(cfg)
        if cls.ranked and cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM:
            logger.warning(
                "MODEL.SEM_SEG_HEAD.USE_LAYERNORM says nothing to a model without RankSeg; set "
                "MODEL.RANKSEG.FLAG True as well"
            )
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape())
        if not hasattr(getattr(head, "predictor", None), "class_embed"):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}, which classifies no "
                f"masks, as {cls.__name__} does; set it to MaskFormerHead, or "
                "MODEL.META_ARCHITECTURE to SemanticSegmentor"
            )
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "criterion": build_criterion(cfg),
            "results": ResultOptions.from_config(cfg),
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def num_classes(self) -> int:
        return len(self.criterion.empty_weight) - 1

    def forward(self, batched_inputs: list[dict]):
        """Losses by name in training, otherwise one dict of results per image or clip."""
        if not self.training:
            return self.segment(batched_inputs)
        clips = self.preprocess(batched_inputs)
        outputs = self.predict(clips.tensor, clips.num_frames)
        return self.losses(outputs, self.prepare_targets(batched_inputs, clips))

    def segment(self, batched_inputs: list[dict]) -> list[dict]:
        """Results, for which no ground truth is needed."""
        clips = self.preprocess(batched_inputs)
        outputs = self.predict(clips.tensor, clips.num_frames, clips.present)
        return self.inference(outputs, batched_inputs, clips)

    def predict(
        self, frames: Tensor, num_frames: int = 1, present: Tensor | None = None
    ) -> Predictions:
        """The part that is tensors in, tensors out: frames (B·T, 3, H, W), normalised and padded.

        `present` (B, C) says which categories there are, to models that are told.
        """
        outputs = self.sem_seg_head(self.backbone(frames), num_frames)
        return outputs if self.training else self.decide(outputs, present)

    def compile(self, *args, **kwargs) -> None:
        """Compile `predict`, in place, with the arguments of torch.compile.

        `model.eval().compile(fullgraph=True)` is one graph per size of input. As with any module
        that is compiled in place, copies and pickles of the model are not compiled.
        """
        self.predict = torch.compile(self.predict, *args, **kwargs)

    def __getstate__(self) -> dict:
        return {name: value for name, value in super().__getstate__().items() if name != "predict"}

    def preprocess(self, batched_inputs: list[dict]) -> Clips:
        """Normalise and pad the frames."""
        clips = [self.frames(sample) for sample in batched_inputs]
        return batch_clips(clips, self.pixel_mean, self.pixel_std, self.size_divisibility)

    def frames(self, sample: dict) -> list[Tensor]:
        return [sample["image"]]

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> list[dict]:
        """Labels (N,) and masks (N, T, H, W) of each image or clip, at the padded size."""
        return [self.targets(sample, clips.padded_size) for sample in batched_inputs]

    def targets(self, sample: dict, padded_size: tuple[int, int]) -> dict:
        return image_targets(sample, padded_size, self.num_classes, self.device)

    def losses(self, outputs: Predictions, targets: list[dict]) -> dict[str, Tensor]:
        """Weighted losses of all L predictions; the last one's names have no number."""
        logits = self.classify(outputs, outputs.queries)  # (L, B, Q, C+1)
        layers = [
            {"pred_logits": layer, "pred_masks": masks}
            for layer, masks in zip(logits, outputs.masks, strict=True)
        ]
        return self.criterion({**layers[-1], "aux_outputs": layers[:-1]}, targets)

    def classify(self, outputs: Predictions, queries: Tensor) -> Tensor:
        """Class logits of query features: (..., B, Q, D) -> (..., B, Q, C+1), no-object last."""
        return self.sem_seg_head.predictor.class_embed(queries)

    def decide(self, outputs: Predictions, present: Tensor | None = None) -> Predictions:
        """Add the class logits of the last prediction."""
        return replace(outputs, logits=self.classify(outputs, outputs.queries[-1]))

    def inference(
        self, outputs: Predictions, batched_inputs: list[dict], clips: Clips
    ) -> list[dict]:
        """Results at each sample's own size (`height`, `width`), else at its input size."""
        results = []
        for i, (sample, size) in enumerate(zip(batched_inputs, clips.sizes, strict=True)):
            classes = None if outputs.ranking is None else outputs.ranking.image(i)
            shape = Shape(clips.padded_size, size, output_size(sample, size))
            results.append(self.result(outputs.logits[i], outputs.masks[-1][i], classes, shape))
        return results

    def result(self, logits: Tensor, masks: Tensor, ranking, shape: Shape) -> dict:
        return image_result(logits, masks, ranking, shape, self.results)


@register(META_ARCH_REGISTRY)
class VideoMaskFormer(MaskFormer):
    """The same for clips: only how frames come in and how results go out differs.

    With `windows` a video may be of any length. `label_sinks` are then called with each label map
    as soon as there is one: sink(sample, number of the frame, labels (H, W)).
    """

    @configurable
    def __init__(self, *, windows: VideoWindows | None = None, **options):
        super().__init__(**options)
        self.windows = windows
        self.label_sinks = []

    @classmethod
    def from_config(cls, cfg):
        return super().from_config(cfg) | {"windows": VideoWindows.from_config(cfg)}

    def segment(self, batched_inputs):
        if self.windows is None:
            return super().segment(batched_inputs)
        return [segment_video(self, sample, self.windows) for sample in batched_inputs]

    def frames(self, sample):
        return list(sample["image"])

    def targets(self, sample, padded_size):
        return clip_targets(sample, padded_size, self.num_classes, self.device)

    def result(self, logits, masks, ranking, shape):
        return video_result(logits, masks, ranking, shape, self.results)
