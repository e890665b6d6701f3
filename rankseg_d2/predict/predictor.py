"""`Predictor`: from a checkpoint to results for images, folders and videos."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model

from ..checkpoints import read_metadata
from ..config import get_config, parse_config
from ..data.mappers.recipes import at_test_time
from ..engine import Checkpointer, describe
from ..engine.packing import FORMAT
from ..errors import sentence
from ..modeling.meta_arch import Segmentation
from ..modeling.passes import in_passes
from ..ranking import Calibration
from .classes import Classes
from .explore import check_explorable, predict_explorable
from .frames import Video, open_video
from .loading import NAME, check_loaded, describe_classes, device_of, dtype_name
from .outputs import from_output
from .reading import Entry, batches, read_ahead
from .results import ImageResult
from .sources import Item, is_video, open_source
from .windows import run_video
from .wishes import Wishes

_AHEAD = 2  # batches that are decoded while one runs


class UnreadableItem(ValueError):
    """An image of a source cannot be read."""


class Predictor:
    """Segments images with a trained model.

        predictor = Predictor.from_checkpoint("model_best.safetensors")
        for result in predictor("photos/", batch=4):
            result.save("out/")

    Attributes:
        model: in evaluation mode, on its device.
        classes: their names, colours and ids.
        cfg: the config of the model.
    """

    def __init__(
        self,
        model: Segmentation,
        cfg: CfgNode,
        classes: Classes,
        *,
        calibration: Calibration | None = None,
        dtype: torch.dtype | None = None,
    ):
        if not isinstance(model, Segmentation):
            raise ValueError(
                f"a Predictor needs a model of this package, not {type(model).__name__}: set "
                "MODEL.META_ARCHITECTURE to MaskFormer, VideoMaskFormer or PixelClassifier"
            )
        if len(classes) != model.num_classes:
            raise ValueError(
                f"the model has {model.num_classes} classes, but there are {len(classes)} names"
            )
        if model.ranks and model.ranker.oracle:
            raise ValueError(
                "the oracle (MODEL.RANKSEG.USE_GT) ranks by ground truth, which a picture does not "
                "bring; use a model with a multi-label head"
            )
        options = model.result_options
        results = "semantic", "panoptic", "instance", "entity", "parsing"
        if not any(getattr(options, name) for name in results):
            raise ValueError(
                "MODEL.MASK_FORMER.TEST switches all results off; set SEMANTIC_ON, PANOPTIC_ON, "
                "INSTANCE_ON, ENTITY_ON or PARSING_ON True"
            )
        model.result_options = replace(options, semantic_scores=False)
        self.model, self.cfg, self.classes = model.eval(), cfg, classes
        self.calibration, self.dtype = calibration, dtype
        self._passes = self.model if model.is_video else in_passes(cfg, self.model)
        makes_sizes = cfg.TEST.AUG.ENABLED and not model.is_video
        resize = [] if makes_sizes else at_test_time(cfg)
        self._augment = T.AugmentationList(resize)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        *,
        device: str = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> "Predictor":
        """The model of a file that a training of this package has written, with all it needs.

        `dtype` of inference: float32, bfloat16 or float16; by default the config's MODEL.DTYPE.
        """
        path = os.fspath(path)
        said = read_metadata(path)
        if "config" not in said:
            raise ValueError(
                f"{path} has weights, but does not say what model and which classes they are of; "
                "use Predictor.from_config(CONFIG, weights=...) or, in `rankseg-d2 predict`, "
                "--config CONFIG"
            )
        if said.get("format", FORMAT) > FORMAT:
            raise ValueError(f"{path} was written by a newer version; update rankseg_d2")
        classes = Classes.described(said)
        opts = ["MODEL.DEVICE", device_of(device), "DATASETS.TRAIN", (NAME,), "DATASETS.TEST", ()]
        describe_classes(classes)
        cfg = parse_config(said["config"], f"the config in {path}", opts)
        calibration = said.get("calibration")
        calibration = None if calibration is None else Calibration.from_json(calibration)
        return cls._loaded(cfg, path, classes, calibration, dtype)

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike,
        weights: str | os.PathLike,
        *,
        classes: Sequence[str] | None = None,
        opts: Sequence = (),
        device: str = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> "Predictor":
        """The model of a config, with weights; `classes` if its data sets do not name them."""
        cfg = get_config(config, [*opts, "MODEL.DEVICE", device_of(device)])
        if classes is not None:
            known = Classes.of([{"name": name} for name in classes])
        else:
            said = describe(cfg)
            if said is None:
                raise ValueError(
                    f"the data sets of {config} do not name their classes; give "
                    "classes=[...], the names in the order of the model's outputs"
                )
            known = Classes.described(said)
        return cls._loaded(cfg, os.fspath(weights), known, None, dtype)

    @classmethod
    def from_onnx(cls, path: str | os.PathLike, *, device: str = "auto") -> "Predictor":
        """The model of a file that `rankseg-d2 export` has written, run by onnxruntime."""
        from .onnx_model import load

        model, cfg, classes, calibration = load(path, device)
        return cls(model, cfg, classes, calibration=calibration)

    @classmethod
    def _loaded(cls, cfg, weights, classes, calibration, dtype):
        if not weights:
            raise ValueError("weights is empty; name the file of a trained model")
        cfg.defrost()
        if dtype is not None:
            cfg.MODEL.DTYPE = dtype_name(dtype)
        cfg.MODEL.TIMM.PRETRAINED = None  # the weights bring all
        cfg.freeze()
        model = build_model(cfg)
        checkpointer = Checkpointer(model, class_names=classes.names)
        checkpointer.load(weights)
        check_loaded(model, checkpointer.fresh, weights)
        return cls(model, cfg, classes, calibration=calibration)

    @property
    def topk(self) -> int | None:
        """The κ that the model was trained with; None: it does not rank."""
        return self.model.ranker.topk if self.model.ranks else None

    @property
    def gives_panoptic(self) -> bool:
        """Whether the results have segments."""
        return self.model.result_options.panoptic and "PANOPTIC_ON" in self.model.switches

    def __call__(
        self,
        source: Any,
        *,
        batch: int = 1,
        threads: int = 2,
        video: bool = False,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        prior: Mapping[str, float] | None = None,
        topk: int | None = None,
        threshold: float | None = None,
        recall: float | None = None,
        skip_errors: bool = False,
        explorable: bool = False,
    ) -> Any:
        """Results of a source: one for an image, a list for a list, else a generator.

        A model for videos gives one VideoResult, other models a result for each frame of a video.

        Args:
            source: a path, pattern, folder, array (H, W, 3) in RGB, PIL image, tensor (3, H, W), or
                a list or generator of those; or the path of a video.
            batch: images that run together; only images of one size do.
            threads: that decode images while the model runs.
            video: the source is a video: a folder, pattern, list or array (T, H, W, 3) of frames.
            allow: the names of the only classes that may be found.
            deny: names of classes that may not. Freed places of the ranking go to the next ones.
            prior: factors of the odds of classes, by name: 2 makes one twice as likely.
            topk: keep so many categories, at most as many as the model was trained with.
            threshold: keep categories whose probability is above this; always the best one.
            recall: keep as many as `rankseg-d2 kappa --write` has found necessary for this.
            skip_errors: give the error in place of the result of an image that cannot be read.
            explorable: keep what `result.explore("page.html")` needs, some MB for each image.
        """
        wishes = Wishes.of(
            self.model, self.classes, self.calibration, allow=allow, deny=deny, prior=prior,
            topk=topk, threshold=threshold, recall=recall,
        )  # fmt: skip
        if batch < 1 or threads < 1:
            raise ValueError(f"batch and threads must be at least 1; got {batch} and {threads}")
        if explorable:
            check_explorable(self.model, self.cfg)
        if video or is_video(source):
            return self._predict_video(open_video(source), wishes, batch, explorable)
        if self.model.is_video:
            raise ValueError(
                "this model is for videos: give the path of a video, or the folder or list of its "
                "frames with video=True (--video of `rankseg-d2 predict`)"
            )
        found = open_source(source)
        results = self._results(found.items, batch, threads, wishes, skip_errors, explorable)
        if found.is_one:
            return next(results)
        return list(results) if found.is_list else results

    def _predict_video(self, video: Video, wishes: Wishes, batch: int, explorable: bool) -> Any:
        if not self.model.is_video:  # frames of a file are decoded in their order, by one thread
            return self._results(video.items(), batch, 1, wishes, False, explorable)
        return run_video(
            self.model, video, self.sample, wishes, self.classes, self.calibration,
            self.model.autocast(self.dtype),
        )  # fmt: skip

    def _results(
        self, items, batch, threads, wishes, skip_errors, explorable
    ) -> Iterator[ImageResult]:
        """One after the other, in the order of the source."""
        done: dict[int, Any] = {}
        following = 0
        with contextlib.closing(read_ahead(items, threads, _AHEAD * batch)) as read:
            for group in batches(read, batch):
                for same in group:
                    numbers = [number for number, _, _ in same]
                    results = self._run(same, wishes, skip_errors, explorable)
                    done |= zip(numbers, results, strict=True)
                    while following in done:
                        yield done.pop(following)
                        following += 1

    def _run(
        self, entries: list[Entry], wishes: Wishes, skip_errors: bool, explorable: bool
    ) -> list[Any]:
        """The results of images of one size, or the error of one."""
        (_, item, pixels), *_ = entries
        if isinstance(pixels, Exception):
            error = _named(pixels, item)
            if not skip_errors:
                raise error from pixels
            return [error]
        start = time.perf_counter()
        samples = [self.sample(pixels) for _, _, pixels in entries]
        prepared = time.perf_counter()
        with torch.no_grad(), self.model.autocast(self.dtype):
            if explorable:
                outputs, kept = predict_explorable(self.model, samples, wishes)
            else:
                with wishes.on(self.model):
                    outputs, kept = self._passes(samples), [None] * len(samples)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        ran = time.perf_counter()
        results = [
            from_output(output, pixels, item, self.classes, wishes, self.calibration)
            for output, (_, item, pixels) in zip(outputs, entries, strict=True)
        ]
        ended, count = time.perf_counter(), len(entries)
        stages = {"prepare": prepared - start, "network": ran - prepared, "results": ended - ran}
        speed = {name: 1000 * seconds / count for name, seconds in stages.items()}
        return [
            replace(result, speed=speed, explorable=one)
            for result, one in zip(results, kept, strict=True)
        ]

    def sample(self, pixels: np.ndarray) -> dict:
        """What the model takes, of RGB pixels (H, W, 3): resized as evaluations do it."""
        height, width = pixels.shape[:2]
        if self.cfg.INPUT.FORMAT == "BGR":
            pixels = pixels[..., ::-1]
        augmented = T.AugInput(pixels)
        self._augment(augmented)
        image = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": image, "height": height, "width": width}

    def __repr__(self) -> str:
        ranks = f", ranks them and keeps {self.topk}" if self.topk else ""
        return (
            f"Predictor({type(self.model).__name__} of {len(self.classes)} classes{ranks}, on "
            f"{self.model.device})"
        )


def _named(error: Exception, item: Item) -> UnreadableItem:
    """The error of reading an item; errors of files name them, the others get the item's name."""
    text = sentence(error)
    return UnreadableItem(text if item.path and item.path in text else f"image {item.name}: {text}")
