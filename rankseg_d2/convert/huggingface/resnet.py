"""The ResNets of transformers' config.json: its own, and timm's by name."""

import re
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ...errors import short

_DEPTHS = {  # (layer_type, depths) -> DEPTH
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}
_COMMON = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.STEM_TYPE": "basic",
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 1, 1],
}
_SHRINKS = 4  # of a bottleneck, the outer channels over the inner ones


def read_timm(name: str, where: str) -> dict[str, Any]:
    """The keys of a ResNet of timm, such as resnet50."""
    match = re.fullmatch(r"resnet(18|34|50|101|152)(\..*)?", name)
    if match is None:
        raise ValueError(
            f"{where}: the backbone is {short(name)} of timm, of which the names are known for "
            "resnet18, 34, 50, 101 and 152 only"
        )
    depth = int(match[1])
    return _keys(depth, 64, 64 if depth < 50 else 256, stride_in_1x1=False)


def read_resnet(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of transformers' own ResNet."""
    kind = section.get("layer_type", "bottleneck")
    depths = tuple(section.get("depths", (3, 4, 6, 3)))
    sizes = list(section.get("hidden_sizes", (256, 512, 1024, 2048)))
    depth = _DEPTHS.get((kind, depths))
    doubles = sizes == [sizes[0] * 2**i for i in range(4)]
    if depth is None or not doubles or section.get("downsample_in_first_stage"):
        raise ValueError(
            f"{where}: this ResNet ({kind}, depths {list(depths)}, hidden_sizes {sizes}) is none "
            "of ResNet-18, 34, 50, 101 and 152"
        )
    if section.get("hidden_act", "relu") != "relu":
        raise ValueError(
            f"{where}: hidden_act is {short(section['hidden_act'])}, but ResNets here have relu"
        )
    in_1x1 = bool(section.get("downsample_in_bottleneck", False))
    return _keys(depth, section.get("embedding_size", 64), sizes[0], in_1x1)


def _keys(depth: int, stem: int, width: int, stride_in_1x1: bool) -> dict[str, Any]:
    """`width` is the number of channels of the first stage's results."""
    return _COMMON | {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": stem,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": width,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width if depth < 50 else width // _SHRINKS,
        "MODEL.RESNETS.STRIDE_IN_1X1": stride_in_1x1,
    }


def write_resnet(cfg: CfgNode) -> dict[str, Any]:
    """The section of a config; ValueError where transformers has no such ResNet."""
    options = cfg.MODEL.RESNETS
    (kind, depths) = next(key for key, depth in _DEPTHS.items() if depth == options.DEPTH)
    width = options.RES2_OUT_CHANNELS
    if kind == "bottleneck" and width != _SHRINKS * options.WIDTH_PER_GROUP:
        raise ValueError(
            f"MODEL.RESNETS.RES2_OUT_CHANNELS, {width}, is not {_SHRINKS} times WIDTH_PER_GROUP, "
            f"{options.WIDTH_PER_GROUP}, as in transformers' ResNet, so it cannot be written"
        )
    return {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": options.STEM_OUT_CHANNELS,
        "hidden_sizes": [width * 2**i for i in range(4)],
        "depths": list(depths),
        "layer_type": kind,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": kind == "bottleneck" and bool(options.STRIDE_IN_1X1),
    }
