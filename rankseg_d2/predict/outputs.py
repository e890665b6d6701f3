"""From a model's output to a result with names."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..modeling.results.reading import encode_masks, label_map, panoptic_segments
from ..ranking import Calibration
from .classes import Classes
from .results import Category, ImageResult, Instances, Panoptic
from .sources import Item
from .wishes import Wishes

_LIKELY = 0.5  # probability of an excluded category that is worth a warning


def from_output(
    output: dict,
    image: np.ndarray,
    item: Item,
    classes: Classes,
    wishes: Wishes,
    calibration: Calibration | None,
) -> ImageResult:
    """The result of a model's output for one image."""
    found: dict[str, Any] = {}
    if output.keys() & {"sem_seg_labels", "sem_seg"}:
        labels = label_map(output)
        found["semantic"] = labels.astype(np.uint8 if len(classes) < 2**8 else np.uint16)
    if "panoptic_seg" in output:
        ids, segments = panoptic_segments(output)
        named = tuple(s | {"name": classes.names[s["category_id"]]} for s in segments)
        found["panoptic"] = Panoptic(ids, named)
    if "instances" in output:
        found["instances"] = _instances(output["instances"], image.shape[:2])
    excluded = tuple(classes.names[i] for i in sorted(wishes.excluded))
    result = ImageResult(image, classes, item.name, item.path, excluded=excluded, **found)
    if "ranking" not in output:
        return result
    more = ranked(classes, output["ranking"], result.shares(), wishes, calibration)
    return replace(result, **more)


def _instances(found: Any, size: tuple[int, int]) -> Instances:
    found = found.to("cpu")
    rles = encode_masks(found.pred_masks)
    kept = [i for i, one in enumerate(rles) if one is not None]
    persons: dict[str, np.ndarray] = {}
    if found.has("pred_parts"):
        parts = found.pred_parts  # (N, H, W), which agree where persons overlap
        persons["part_map"] = parts.amax(0).numpy() if len(parts) else np.zeros(size, np.uint8)
        persons["part_scores"] = found.part_scores.float().numpy()[kept]
    return Instances(
        found.scores.float().numpy()[kept],
        found.pred_classes.numpy()[kept],
        found.pred_boxes.tensor.numpy()[kept],
        tuple(rles[i] for i in kept),
        size,
        **persons,
    )


def ranked(
    classes: Classes,
    ranking: dict,
    present: Collection[int],
    wishes: Wishes,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """The ranked `categories` of a result, and `likely_excluded`, the excluded ones likely there.

    `present` are the numbers of the classes that some pixel has.
    """
    scores = ranking["scores"].float().cpu()
    prior = torch.zeros_like(scores) if wishes.prior is None else wishes.prior
    probabilities = (calibration or Calibration()).probabilities(scores - prior)
    chances = (torch.logit(probabilities.double()) + prior).sigmoid().tolist()
    kept = set(ranking["classes"].tolist())
    order = scores.argsort(descending=True, stable=True).tolist()
    categories = tuple(
        Category(classes.names[i], i, chances[i], i in kept, i in present) for i in order
    )
    likely = tuple(
        one.name for one in categories
        if one.number in wishes.excluded and one.probability > _LIKELY
    )  # fmt: skip
    return {"categories": categories, "likely_excluded": likely}
