"""A file of `rankseg-d2 export` as a model of this package: onnxruntime runs its network."""

import importlib
import json
import os
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..checkpoints import METADATA
from ..config import parse_config
from ..errors import sentence
from ..modeling.clips import Clips
from ..modeling.meta_arch import MaskFormer, PixelClassifier, Segmentation
from ..modeling.outputs import Outputs
from ..modeling.pixel_heads.head import PixelHead
from ..modeling.results import ResultOptions, Sizes, mask_result, ranking_result
from ..ranking import Calibration, Ranker, Ranking
from .classes import Classes
from .loading import NAME, describe_classes

FORMAT = 1  # of the description in an exported file
INPUT = "images"  # the name of the only input
# Device -> what runs there, the faster one first.
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def needed(package: str) -> ModuleType:
    """An optional package of the extra `export`; ImportError with what to install."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"ONNX files need {package}, which is not installed: "
            "pip install onnx onnxscript onnxruntime"
        ) from error


@dataclass(frozen=True)
class OnnxOutputs(Outputs):
    """What a file gives: logits are decided already."""

    logits: Tensor  # (1, B, Q, K+1) of masks, or (1, B, K, h, w) of pixels
    masks: Tensor | None = None  # (B, Q, 1, h, w)


class OnnxModel(Segmentation):
    """The steps of a model for images, of which a session of onnxruntime runs the network."""

    def __init__(self, session: Any, said: dict, **options: Any):
        super().__init__(
            backbone=nn.Identity(),
            result_options=_result_options(said["results"]),
            size_divisibility=said["multiple"],
            pixel_mean=said["pixel_mean"],
            pixel_std=said["pixel_std"],
            **options,
        )
        self.session = session
        self.names = [output.name for output in session.get_outputs()]
        self.only_size = said["size"]
        self.ranks = said["topk"] is not None
        if self.ranks:
            self.ranker = self.exported_ranker = Ranker(said["topk"], said["threshold"])

    def preprocess(self, batched_inputs: list[dict]) -> Clips:
        clips = super().preprocess(batched_inputs)
        if self.only_size is None:
            return clips
        return replace(clips, tensor=_padded(clips.tensor, self.only_size))

    def network(self, frames: Tensor, num_frames: int = 1) -> OnnxOutputs:
        found = self.session.run(self.names, {INPUT: frames.numpy()})
        return self.outputs(dict(zip(self.names, map(torch.from_numpy, found), strict=True)))

    def outputs(self, found: dict[str, Tensor]) -> OnnxOutputs:
        """The outputs of the file, by the names that `rankseg-d2 export` gives them."""
        ranking = None
        if self.ranks:
            names = ("category_scores", "categories", "valid")
            ranking = Ranking(*map(found.get, names))
        if "pixel_logits" in found:
            return OnnxOutputs(found["pixel_logits"][None], ranking=ranking)
        masks = found["mask_logits"].unsqueeze(2)
        return OnnxOutputs(found["class_logits"][None], masks, ranking=ranking)

    def decide(self, outputs: OnnxOutputs) -> OnnxOutputs:
        asked = self.ranker
        if self.ranks and (asked != self.exported_ranker or asked.excluded is not None
                           or asked.prior is not None):  # fmt: skip
            raise ValueError(
                "an exported model ranks as it was exported: allow, deny, prior, topk, threshold "
                "and recall need the checkpoint (Predictor.from_checkpoint)"
            )
        return outputs

    def result(self, outputs: OnnxOutputs, i: int, sizes: Sizes) -> dict:
        ranking = outputs.image_ranking(i)
        result = self.maps(outputs, i, sizes)
        return result if ranking is None else result | {"ranking": ranking_result(ranking)}

    def maps(self, outputs: OnnxOutputs, i: int, sizes: Sizes) -> dict:
        """The results of image i, without the ranking."""
        raise NotImplementedError


class OnnxMasks(OnnxModel):
    """Of a mask classifier."""

    switches = MaskFormer.switches

    def __init__(self, session: Any, said: dict):
        super().__init__(session, said, sem_seg_head=nn.Identity())
        self.count = len(said["classes"])

    @property
    def num_classes(self) -> int:
        return self.count

    def maps(self, outputs: OnnxOutputs, i: int, sizes: Sizes) -> dict:
        logits, masks, ranking = outputs.logits[0, i], outputs.masks[i], outputs.image_ranking(i)
        return mask_result(logits, masks, ranking, sizes, self.result_options, is_video=False)


class OnnxPixels(OnnxModel, PixelClassifier):
    """Of a pixel classifier, whose maps lie in the image as the head says."""

    def __init__(self, session: Any, said: dict):
        count = len(said["classes"])
        head = PixelHead(num_classes=count, coarse_width=0, class_width=0, **said["pixels"])
        super().__init__(session, said, sem_seg_head=head)

    def maps(self, outputs: OnnxOutputs, i: int, sizes: Sizes) -> dict:
        return PixelClassifier.result(self, outputs, i, sizes)


def load(
    path: str | os.PathLike, device: str = "auto"
) -> tuple[OnnxModel, CfgNode, Classes, Calibration | None]:
    """What a Predictor is made of, from the file alone."""
    session = _session(os.fspath(path), device)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise ValueError(
            f"{path} does not say what it is of, since `rankseg-d2 export` has not written it; "
            "export the checkpoint again"
        )
    said = json.loads(text)
    if said["format"] > FORMAT:
        raise ValueError(f"{path} was written by a newer version; update rankseg_d2")
    if said["frames"] is not None:
        raise ValueError(
            f"{path} takes clips of {said['frames']} frames; whole videos need the checkpoint "
            "(Predictor.from_checkpoint), and clips the Python file beside it"
        )
    classes = Classes.described(said)
    describe_classes(classes)
    opts = ["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", (NAME,), "DATASETS.TEST", ()]
    cfg = parse_config(said["config"], f"the config in {path}", opts)
    for key in ("SLIDING_WINDOW", "AUG"):
        if cfg.TEST[key].ENABLED and said["topk"] is not None:
            raise ValueError(
                f"TEST.{key} of {path} needs one ranking for several passes, and an exported model "
                f"ranks each pass by itself; export it with --set TEST.{key}.ENABLED=False"
            )
    model = OnnxPixels if said["pixels"] else OnnxMasks
    calibration = said["calibration"]
    calibration = None if calibration is None else Calibration.from_json(calibration)
    return model(session, said), cfg, classes, calibration


def _session(path: str, device: str) -> Any:
    onnxruntime = needed("onnxruntime")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist; name a file of `rankseg-d2 export`")
    available = onnxruntime.get_available_providers()
    kind = device.partition(":")[0]
    names = _PROVIDERS if kind == "auto" else dict.fromkeys((kind, "cpu"))
    if kind != "auto" and _PROVIDERS.get(kind) not in available:
        raise ValueError(
            f"this onnxruntime does not run on {device}, only by {', '.join(available)}; take "
            'device="cpu", or install onnxruntime-gpu'
        )
    providers = [_PROVIDERS[name] for name in names if _PROVIDERS[name] in available]
    try:
        return onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # its errors have no common class
        raise ValueError(f"onnxruntime cannot read {path}: {sentence(error)}") from error


def _result_options(said: dict) -> ResultOptions:
    sets = {name: frozenset(said[name]) for name in ("thing_ids", "excluded")}
    return ResultOptions(**said | sets)


def _padded(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames at the only size that a file takes."""
    height, width = frames.shape[-2:]
    if height > size[0] or width > size[1]:
        raise ValueError(
            f"the file was exported for images of at most {size[0]} x {size[1]} pixels, and this "
            f"one has {height} x {width} after INPUT.MIN_SIZE_TEST; export it without --size"
        )
    return nn.functional.pad(frames, (0, size[1] - width, 0, size[0] - height))
