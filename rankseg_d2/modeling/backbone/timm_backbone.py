"""Any model of timm as a backbone: MODEL.BACKBONE.NAME TimmBackbone, MODEL.TIMM.NAME <model>."""

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import short, unknown_name
from ..registering import register
from .packaged_weights import load_packaged_weights, package_of, weight_file
from .pyramid import STRIDES, change_stride

logger = logging.getLogger(__name__)

_BLOCK = re.compile(r"\.\d+\.")  # in the name of a parameter of a numbered block
# The options by which timm's families accept images of any size; most families need none.
_ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


@register(BACKBONE_REGISTRY)
class TimmBackbone(Backbone):
    """Images -> feature name -> (B, channels, H / stride, W / stride), strides 4, 8, 16, 32.

    `model` is timm's, with its parameter names. `resample` makes the levels that it does not have
    from the nearest one; all levels of a plain ViT come from its last map. If the patch size is not
    a power of 2 (DINOv2's 14), the image is resized so that the strides are.
    """

    @configurable
    def __init__(
        self,
        name: str,
        *,
        pretrained: str | bool | None = None,
        in_channels: int = 3,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        drop_path_rate: float = 0.0,
    ):
        """
        Args:
            pretrained: `package`: weights of an installed package; `hub` or True: timm's own, which
                it downloads; None or False: random weights.
        """
        super().__init__()
        if not out_features or not set(out_features) <= STRIDES.keys():
            raise ValueError(
                f"MODEL.TIMM.OUT_FEATURES must be some of {', '.join(STRIDES)}, got "
                f"{list(out_features)}"
            )
        self._out_features = [level for level in STRIDES if level in out_features]
        self._out_feature_strides = STRIDES
        self._out_feature_channels = {}
        self.model = _create(name, pretrained, in_channels, drop_path_rate)

        maps = self.model.feature_info
        coarsest = max(info["reduction"] for info in maps)
        self.image_scale = coarsest / _power_of_2(coarsest)
        strides = [_power_of_2(info["reduction"] / self.image_scale) for info in maps]
        last = {stride: i for i, stride in enumerate(strides)}  # the last map of each stride
        # A plain ViT ends in a norm; the maps of the others are used as they are.
        self.final_norm = len(last) == 1
        self.sources, self.resample = {}, nn.ModuleDict()
        for level in self._out_features:
            stride = _nearest(last, STRIDES[level])
            self.sources[level] = last[stride]
            channels = maps[last[stride]]["num_chs"]
            if self.final_norm:
                channels = maps[-1].get("num_chs_norm", channels)
            self.resample[level], self._out_feature_channels[level] = change_stride(
                channels, stride, STRIDES[level]
            )
        self.indices = sorted(set(self.sources.values()))
        self.model.prune_intermediate_layers(self.indices, prune_norm=not self.final_norm)
        self._check_any_size(name, in_channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        options = cfg.MODEL.TIMM
        return {
            "name": options.NAME,
            "pretrained": options.PRETRAINED,
            "in_channels": input_shape.channels,
            "out_features": options.OUT_FEATURES,
            "drop_path_rate": options.DROP_PATH_RATE,
        }

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        if height % 32 or width % 32 or not height * width:
            raise ValueError(
                f"TimmBackbone takes images whose sides are multiples of 32, got {height}x{width}; "
                "set MODEL.MASK_FORMER.SIZE_DIVISIBILITY to 32, so that they are padded"
            )
        if self.image_scale != 1:
            size = round(height * self.image_scale), round(width * self.image_scale)
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        maps = self.model.forward_intermediates(
            x.contiguous(memory_format=torch.channels_last),  # convolutions keep it, and are faster
            indices=self.indices,
            norm=self.final_norm,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        maps = dict(zip(self.indices, maps, strict=True))
        features = {}
        for level in self._out_features:
            feature = self.resample[level](maps[self.sources[level]])
            size = height // STRIDES[level], width // STRIDES[level]
            if feature.shape[-2:] != size:  # convolutions without padding, such as Inception's
                feature = F.interpolate(feature, size=size, mode="bilinear")
            features[level] = feature
        return features

    def layers_above(self) -> dict[str, int]:
        """For each parameter the number of blocks above its own, for layer-wise decay.

        Parameters before the first block count as the first, those after the last as the last.
        """
        from timm.models import group_parameters

        layers = group_parameters(self.model, self.model.group_matcher(), reverse=True)
        blocks = [layer for name, layer in layers.items() if _BLOCK.search(name)]
        if not blocks:
            return {}
        first, last = min(blocks), max(blocks)
        return {
            f"model.{name}": last - min(max(layer, first), last) for name, layer in layers.items()
        }

    @torch.no_grad()
    def _check_any_size(self, name: str, in_channels: int) -> None:
        training = self.training
        try:
            self.eval()(torch.zeros(1, in_channels, 96, 160))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"MODEL.TIMM.NAME: {name} does not take images of any size (timm says: "
                f"{str(error) or 'an assertion failed'}); choose a model that does, such as "
                "resnet50, convnext_tiny, swin_tiny_patch4_window7_224, vit_small_patch14_dinov2"
            ) from error
        self.train(training)


def _create(
    name: str, pretrained: str | bool | None, in_channels: int, drop_path_rate: float
) -> nn.Module:
    import timm

    _check_name(name)
    pretrained = "hub" if pretrained is True else pretrained or None
    if pretrained not in (None, "package", "hub"):
        raise ValueError(
            f"MODEL.TIMM.PRETRAINED must be package, hub or False; got {short(pretrained)}"
        )
    is_meta = torch.empty(0).is_meta  # without memory: nothing is to be loaded
    if pretrained == "package":
        weight_file(name)
    options = {"pretrained": pretrained == "hub" and not is_meta, "in_chans": in_channels}
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    for sizes in _ANY_SIZE:
        try:
            model = timm.create_model(name, **options, **sizes)
            break
        except TypeError as error:  # the message names the option that the model does not have
            if "drop_path_rate" in str(error):
                raise ValueError(
                    f"MODEL.TIMM.DROP_PATH_RATE must be 0 for {name}, which has no stochastic "
                    f"depth, got {drop_path_rate}"
                ) from error
            if not any(option in str(error) for option in sizes):
                raise
        except (OSError, RuntimeError) as error:
            if not options["pretrained"]:
                raise
            raise FileNotFoundError(_no_weights(name, error)) from error
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(
            f"MODEL.TIMM.NAME: {name} gives no feature maps in timm {timm.__version__}; update "
            "timm, or choose another model"
        )
    if pretrained and not is_meta:
        if pretrained == "package":
            load_packaged_weights(model, name)
        _log_pixels(name, pretrained, model)
    return model


def _log_pixels(name: str, pretrained: str, model: nn.Module) -> None:
    """Say which pixels the weights were trained with."""
    if pretrained == "package":
        package = package_of(name)
        mean, std = [package.mean] * 3, [package.std] * 3
    else:
        mean, std = ([255 * x for x in model.pretrained_cfg[key]] for key in ("mean", "std"))
    logger.info(
        "%s was trained with INPUT.FORMAT RGB, MODEL.PIXEL_MEAN %s, MODEL.PIXEL_STD %s",
        name,
        [round(x, 3) for x in mean],
        [round(x, 3) for x in std],
    )


def _check_name(name: str) -> None:
    """Raise KeyError with near names; the names of a hub ("hf-hub:...") are not checked."""
    import timm

    if ":" in name:
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("MODEL.TIMM.NAME", name, timm.list_models())
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise unknown_name("MODEL.TIMM.NAME", name, [architecture, *tagged])


def _no_weights(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"MODEL.TIMM.PRETRAINED: the weights of {name} cannot be loaded ({reason}); set it to "
        "False, and MODEL.WEIGHTS to a local file of this model's weights "
        "(<file>?matching_heuristics=True)"
    )


def _nearest(strides, wanted: int) -> int:
    """The nearest stride; the finer one of two that are equally near."""
    return min(strides, key=lambda stride: (abs(math.log2(stride / wanted)), stride))


def _power_of_2(x: float) -> int:
    return 2 ** round(math.log2(x))
