"""The page in which a result is explored.

`result` is an ImageResult.
"""

import math
from typing import Any

import cv2
import numpy as np

from ...pages import fill_page, jpeg_url
from ...ranking import Ranker
from .packing import pack, quantize
from .stored import Explorable

MAX_BYTES = 5_000_000  # of a page
MAX_PIXELS = 640_000  # of the picture in it
_PARTS = ("page.css", "resizing.js", "segmentation.js", "drawing.js", "controls.js")


def make_page(result: Any, kept: Explorable) -> bytes:
    """The HTML of a result.

    A page that would be larger than MAX_BYTES gets coarser maps, and says so.
    """
    content = _content(result, kept)
    for bits, shrink in _fineness(kept):
        content["maps"] = quantize(_smaller(kept.maps, shrink), bits, bent=kept.is_regions)
        content["shrink"] = shrink
        page = fill_page(__package__, _PARTS, content, content["name"])
        if len(page) <= MAX_BYTES:
            break
    return page


def _fineness(kept: Explorable) -> list[tuple[int, int]]:
    """Bits and shrinking, the best first; 8 bits are enough for masks, whose logits are bent."""
    halves = [(8, 2**i) for i in range(int(math.log2(min(kept.maps.shape[1:]))) + 1)]
    return halves if kept.is_regions else [(16, 1), *halves]


def _smaller(maps: np.ndarray, shrink: int) -> np.ndarray:
    if shrink == 1:
        return maps
    height, width = (-(-side // shrink) for side in maps.shape[1:])
    return np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_AREA) for m in maps])


def _content(result: Any, kept: Explorable) -> dict[str, Any]:
    picture = _picture(result.image)
    prior = () if kept.wishes.prior is None else kept.wishes.prior.tolist()
    priors = zip(result.classes.names, prior, strict=False)
    return {
        "name": result.name,
        "picture": jpeg_url(picture),
        "original": list(result.size),
        "sizes": {**kept.sizes._asdict(), "output": picture.shape[:2]},
        "regions": kept.is_regions,
        "resizeFirst": kept.resize_first,
        "trained": _wishes(kept.trained),
        "start": _wishes(kept.used) | {"denied": sorted(kept.wishes.excluded)},
        "prior": {name: math.exp(added) for name, added in priors if added},
        "classes": _rows(result, kept),
        "categories": kept.categories.tolist(),
        "norm": kept.norm,
        "gate": kept.used.gate if kept.used else 0,
        "logits": None if kept.logits is None else pack(kept.logits),
    }


def _wishes(ranker: Ranker | None) -> dict[str, Any]:
    """κ, None without a ranking, and the threshold, 0 for none."""
    if ranker is None:
        return {"topk": None, "threshold": 0}
    return {"topk": ranker.topk, "threshold": ranker.threshold or 0}


def _rows(result: Any, kept: Explorable) -> list[dict[str, Any]]:
    """Of every class: its name, its colour, its score and its probability."""
    names, colors = result.classes.names, result.classes.colors.tolist()
    probabilities = {one.number: one.probability for one in result.categories}
    scores = kept.strengths if kept.scores is None else kept.scores
    return [
        {
            "name": name,
            "color": color,
            "score": float(scores[number]),
            "probability": round(float(probabilities.get(number, scores[number])), 5),
        }
        for number, (name, color) in enumerate(zip(names, colors, strict=True))
    ]


def _picture(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = math.sqrt(MAX_PIXELS / (height * width))
    if scale >= 1:
        return image
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
