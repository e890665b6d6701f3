"""preprocessor_config.json: how images are resized and normalised, as keys and back."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ...errors import short
from .folder import KINDS, PREPROCESSOR

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
_SIZE = {"shortest_edge": 800, "longest_edge": 1333}
_BILINEAR = 2  # PIL's number
_UNLIMITED = 100_000


def read_images(found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The keys, and sentences about what is not the same here."""
    notes = []
    if not found:
        notes.append(f"there is no {PREPROCESSOR}, so transformers' defaults are taken")
    scale = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if found.get("do_normalize", True):
        mean, std = found.get("image_mean", _MEAN), found.get("image_std", _STD)
    keys = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [_short(value / scale) for value in mean],
        "MODEL.PIXEL_STD": [_short(value / scale) for value in std],
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": found.get("size_divisor", 32) or 0,
    }
    if not found.get("do_resize", True):
        return keys | {"INPUT.MIN_SIZE_TEST": 0}, notes
    if found.get("resample", _BILINEAR) != _BILINEAR:
        notes.append(f"resample is {short(found['resample'])}; here images are resized bilinearly")
    shortest, longest, note = _edges(found)
    return keys | {"INPUT.MIN_SIZE_TEST": shortest, "INPUT.MAX_SIZE_TEST": longest}, notes + note


def _edges(found: Mapping[str, Any]) -> tuple[int, int, list[str]]:
    """The shortest edge, the most that the longest one may have, and a note."""
    size = found.get("size", _SIZE)
    if isinstance(size, int):  # of old versions
        longest = found.get("max_size", found.get("_max_size"))
        size = {"shortest_edge": size, "longest_edge": longest}
    if "shortest_edge" in size:
        return size["shortest_edge"], size.get("longest_edge") or _UNLIMITED, []
    if {"height", "width"} <= set(size):
        shortest = min(size["height"], size["width"])
        longest = max(size["height"], size["width"], _SIZE["longest_edge"])
        return shortest, longest, [
            f"transformers stretches images to {size['height']} x {size['width']} pixels; here "
            f"they keep their shape, with a shortest edge of {shortest} (INPUT.MIN_SIZE_TEST)"
        ]  # fmt: skip
    raise ValueError(
        f"{PREPROCESSOR}: size is {short(size)}, but should have shortest_edge and longest_edge, "
        "or height and width"
    )


def _short(value: float) -> float:
    """Six digits, which is what was written before it became a float32."""
    return float(f"{value:.6g}")


def write_images(cfg: CfgNode, kind: str, num_classes: int) -> dict[str, Any]:
    """The preprocessor_config.json of a model of KINDS."""
    resizes = cfg.INPUT.MIN_SIZE_TEST > 0
    size = {"shortest_edge": cfg.INPUT.MIN_SIZE_TEST, "longest_edge": cfg.INPUT.MAX_SIZE_TEST}
    return {
        "image_processor_type": f"{KINDS[kind]}ImageProcessor",
        "do_resize": resizes,
        "size": size if resizes else _SIZE,
        "size_divisor": max(cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY, 1),
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in cfg.MODEL.PIXEL_MEAN],
        "image_std": [value / 255 for value in cfg.MODEL.PIXEL_STD],
        "ignore_index": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        "do_reduce_labels": False,
        "num_labels": num_classes,
    }
