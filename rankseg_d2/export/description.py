"""What an exported file says of itself: all that its users need beside the graph, as JSON."""

import json
import math
from dataclasses import asdict
from typing import Any

import torch

from .. import __version__
from ..engine.packing import without_paths
from ..modeling.meta_arch import PixelClassifier, Segmentation
from ..predict import Predictor
from ..predict.onnx_model import FORMAT

_MULTIPLE = 32  # of sizes: what the strides of most backbones need


def multiple_of(model: Segmentation) -> int:
    """The sides of an exported network's input are multiples of this."""
    return math.lcm(_MULTIPLE, max(1, model.size_divisibility))


def describe_export(
    predictor: Predictor, frames: int | None, size: tuple[int, int] | None
) -> str:
    """The description of a predictor's model, for clips of `frames`, with one `size` or any."""
    model, cfg, classes = predictor.model, predictor.cfg, predictor.classes
    keys, options, ranker = cfg.INPUT, asdict(model.result_options), model.ranker
    options["thing_ids"] = sorted(classes.things)
    options["excluded"] = sorted(options["excluded"])
    rows = [
        {"name": name, "id": own, "isthing": i in classes.things, "color": color}
        for i, (name, own, color) in enumerate(
            zip(classes.names, classes.ids, classes.colors.tolist(), strict=True)
        )
    ]
    calibration = predictor.calibration
    said: dict[str, Any] = {
        "format": FORMAT,
        "frames": frames,  # of a clip; None: the model takes images
        "channels": keys.FORMAT,
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "min_size": keys.MIN_SIZE_TEST,  # of the shorter side; 0: the image's own size
        "max_size": keys.MAX_SIZE_TEST,
        "multiple": multiple_of(model),
        "size": size,  # the only one; None: any multiple
        "topk": ranker.topk if model.ranks else None,
        "threshold": ranker.threshold if model.ranks else None,
        "results": options,
        "pixels": _of_pixels(model),
        "classes": rows,
        "ignore_label": classes.ignore_label,
        "flip_pairs": classes.flip_pairs,
        "calibration": None if calibration is None else calibration.to_json(),
        "config": without_paths(cfg).dump(),
        "versions": {"rankseg_d2": __version__, "torch": str(torch.__version__)},
    }
    return json.dumps(said)


def _of_pixels(model: Segmentation) -> dict[str, Any] | None:
    """How the maps of a pixel classifier lie in the image; None for mask classifiers."""
    if not isinstance(model, PixelClassifier):
        return None
    return {"stride": model.sem_seg_head.stride, "stretch": model.sem_seg_head.stretch}
