"""START HERE: the one forward of every model, for images and for clips.

    preprocess -> network -> losses             training
    preprocess -> network -> decide -> result   inference, which needs no ground truth

A family (mask_classification.py, pixel_classification.py) defines `network`, `losses`, `decide`
and `result`. RankSeg (rankseg.py) adds a ranking between `network` and `decide`. Sliding
windows, test-time augmentation, windows of a video and `compile` call the same steps.
"""

import contextlib
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ResNet, build_backbone, build_sem_seg_head
from torch import Tensor, nn

from ...checkpoints import Rows
from ...ranking import Ranker
from ..backbone import check_backbone
from ..clips import Clips, batch_clips, check_samples, check_values
from ..gradient_checkpointing import blocks_of, compute_again, head_layers
from ..outputs import Outputs
from ..results import ResultOptions, Sizes

_RARE_RESULTS = {  # by their switch: what they are, and models that give them
    "ENTITY_ON": ("entities", "MaskFormer, EoMT or CondInst"),
    "PARSING_ON": ("persons with their parts", "MaskFormer or EoMT"),
}


class Segmentation(nn.Module):
    """A backbone, a head, and the steps from samples to losses or results."""

    switches: tuple[str, ...]  # keys of MODEL.MASK_FORMER.TEST: the results that it can give
    is_video = False  # samples are clips of several frames
    ranks = False  # by a `ranker`: with RankSeg
    ranker: Ranker | None = None

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        result_options: ResultOptions,
        size_divisibility: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        dtype: torch.dtype = torch.float32,
    ):
        """
        Args:
            dtype: of inference, by autocast; the weights stay as they are.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.result_options = result_options
        # A negative value stands for the backbone's own.
        self.size_divisibility = (
            backbone.size_divisibility if size_divisibility < 0 else size_divisibility
        )
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.dtype = dtype
        # Convolutions are faster with the channels last, and their results keep that order.
        is_resnet = any(isinstance(part, ResNet) for part in backbone.modules())
        self.memory_format = torch.channels_last if is_resnet else torch.contiguous_format
        self._compiled_network = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        check_backbone(cfg)
        for switch, (results, others) in _RARE_RESULTS.items():
            if cfg.MODEL.MASK_FORMER.TEST[switch] and switch not in cls.switches:
                raise ValueError(
                    f"{cls.__name__} gives no {results}; set MODEL.MASK_FORMER.TEST.{switch} "
                    f"False, or MODEL.META_ARCHITECTURE to {others}"
                )
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape())
        if cfg.MODEL.BACKBONE.USE_CHECKPOINT:
            compute_again(blocks_of(backbone))
        if cfg.MODEL.SEM_SEG_HEAD.USE_CHECKPOINT:
            compute_again(head_layers(head))
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "result_options": ResultOptions.from_config(cfg),
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "dtype": getattr(torch, cfg.MODEL.DTYPE),
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses by name in training, otherwise one dict of results per image or clip."""
        check_samples(batched_inputs)
        if not self.training:
            for sample in batched_inputs:
                check_values(sample)
            with self.autocast():
                return self.predict(batched_inputs)
        clips = self.preprocess(batched_inputs)
        outputs = self.run_network(clips)
        targets = self.prepare_targets(batched_inputs, clips)
        return self.losses(outputs, targets) | self.backbone_losses(outputs, targets)

    def autocast(self, dtype: torch.dtype | None = None) -> contextlib.AbstractContextManager:
        """Inference in a type, by default the model's; float32 leaves an outer autocast be."""
        dtype = dtype or self.dtype
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype)

    def predict(self, batched_inputs: list[dict]) -> list[dict]:
        """Results at each sample's own size (`height`, `width`), else at its input size."""
        clips = self.preprocess(batched_inputs)
        sizes = clips.result_sizes(batched_inputs)
        outputs = self.decide(self.run_network(clips))
        return [self.result(outputs, i, size) for i, size in enumerate(sizes)]

    def preprocess(self, batched_inputs: list[dict]) -> Clips:
        """Normalise and pad the frames."""
        clips = [self.frames(sample) for sample in batched_inputs]
        return batch_clips(clips, self.pixel_mean, self.pixel_std, self.size_divisibility)

    def frames(self, sample: dict) -> list[Tensor]:
        """The T frames (3, H, W) of a sample."""
        return [sample["image"]]

    def run_network(self, clips: Clips) -> Outputs:
        """`network`, compiled if `compile` was called."""
        network = self._compiled_network or self.network
        frames = clips.tensor.contiguous(memory_format=self.memory_format)
        return network(frames, clips.num_frames)

    def backbone_losses(self, outputs: Outputs, targets: Any) -> dict[str, Tensor]:
        """The losses of the logits that the backbone itself gives; none unless it gives some."""
        if outputs.backbone_logits is None:
            return {}
        return self.backbone.losses(outputs.backbone_logits, self.label_maps(targets))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile `network`, in place, with the arguments of torch.compile.

        `model.eval().compile(fullgraph=True)` is one graph per size of input. As with any module
        that is compiled in place, copies and pickles of the model are not compiled.
        """
        self._compiled_network = torch.compile(self.network, *args, **kwargs)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_compiled_network": None}

    # The steps that a family defines.

    @property
    def num_classes(self) -> int:
        raise NotImplementedError

    def network(self, frames: Tensor, num_frames: int = 1) -> Outputs:
        """Tensors in, tensors out: frames (B·T, 3, H, W), normalised and padded."""
        raise NotImplementedError

    def prepare_targets(self, batched_inputs: list[dict], clips: Clips) -> Any:
        """The ground truth, in the form that `losses` takes."""
        raise NotImplementedError

    def losses(self, outputs: Outputs, targets: Any) -> dict[str, Tensor]:
        """Weighted losses of all L predictions; the last one's names have no number."""
        raise NotImplementedError

    def label_maps(self, targets: Any) -> Tensor:
        """The class of each pixel of the targets: (B·T, H, W) int64, NO_CLASS where it is none."""
        raise NotImplementedError

    def decide(self, outputs: Outputs) -> Outputs:
        """Add the class logits."""
        raise NotImplementedError

    def result(self, outputs: Outputs, i: int, sizes: Sizes) -> dict:
        """The results of image or clip i."""
        raise NotImplementedError

    def rank_features(self, outputs: Outputs) -> Tensor:
        """The input of a multi-label head: (B, N, D)."""
        raise NotImplementedError

    def class_embedding(self, outputs: Outputs) -> Tensor:
        """The class embeddings that a multi-label head can share: (C, D), or (B, C, D)."""
        raise NotImplementedError

    # For the optimizer and the checkpointer.

    def rate_parts(self) -> dict[str, str]:
        """Parts of the model with their own learning rate: name -> the factor's key in SOLVER."""
        return {"backbone": "BACKBONE_MULTIPLIER"}

    def checkpoint_rows(self) -> dict[str, Rows]:
        """Parameters whose rows stand for classes, queries, ranks or positions, by name."""
        rows = getattr(self.backbone, "checkpoint_rows", dict)()
        return {f"backbone.{name}": value for name, value in rows.items()}
