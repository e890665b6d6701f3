"""The head of CondInst: a feature pyramid, towers of an FCOS detector, kernels, mask features."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..outputs import LocationPredictions
from ..registering import register
from .bank import DynamicBank
from .branches import FCOSTowers, KernelTower, MaskBranch
from .maps import cell_centers

MAPS = 3  # of the backbone, at strides of 8, 16 and 32; the pyramid adds two


@register(SEM_SEG_HEADS_REGISTRY)
class CondInstHead(nn.Module):
    """Backbone features in; classes, boxes, kernels and mask features out."""

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        channels: list[int],
        stride: int,
        num_classes: int,
        dim: int,
        num_convs: int,
        norm: str,
        mask_branch: dict[str, Any],
        with_static: bool,
    ):
        """
        Args:
            channels: of the three features.
            stride: of the first feature, which is also that of the mask features.
            mask_branch: its `width` and the number of features, `mask_dim`.
            with_static: whether the bank has static layers, which only the training runs.
        """
        # Late, for it takes seconds, which no other model needs to pay.
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        super().__init__()
        self.in_features = in_features
        self.strides = [stride * 2**i for i in range(MAPS + 2)]
        self.num_classes = num_classes
        self.pyramid = FeaturePyramidNetwork(channels, dim, LastLevelP6P7(dim, dim))
        self.bank = DynamicBank(mask_branch["mask_dim"], with_static)
        self.towers = FCOSTowers(dim, num_convs, norm, num_classes, len(self.strides))
        self.kernel_tower = KernelTower(dim, norm, self.bank.num_parameters)
        self.mask_branch = MaskBranch(dim, **mask_branch)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head, options = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.CONDINST
        names = sorted(head.IN_FEATURES, key=lambda name: _stride(name, input_shape))
        strides = [input_shape[name].stride for name in names]
        if strides != [strides[0] * 2**i for i in range(MAPS)]:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES of CondInstHead must be {MAPS} features, each of "
                f"twice the stride of the one before, such as res3, res4 and res5; got "
                f"{', '.join(f'{n} of stride {s}' for n, s in zip(names, strides, strict=True))}"
            )
        return {
            "in_features": names,
            "channels": [input_shape[name].channels for name in names],
            "stride": strides[0],
            "num_classes": head.NUM_CLASSES,
            "dim": head.CONVS_DIM,
            "num_convs": options.NUM_CONVS,
            "norm": head.NORM,
            "mask_branch": {"width": options.MASK_WIDTH, "mask_dim": options.MASK_DIM},
            "with_static": options.DYNAMIC_BANK,
        }

    def forward(self, features: dict[str, Tensor]) -> LocationPredictions:
        """Features (B, D, h, w) by name -> the predictions at all locations of five levels."""
        levels = self.pyramid({name: features[name] for name in self.in_features})
        maps = list(levels.values())  # five times (B, D, h, w), the finest first
        logits, distances, centerness, kernels = [], [], [], []
        for number, (one, stride) in enumerate(zip(maps, self.strides, strict=True)):
            classes, box, center = self.towers(one, number)
            logits.append(classes)
            distances.append(box * stride)
            centerness.append(center)
            kernels.append(self.kernel_tower(one))
        counts = torch.tensor([one.shape[-2:].numel() for one in maps], device=maps[0].device)
        strides = torch.tensor(self.strides, device=counts.device)
        centers = [
            cell_centers(tuple(one.shape[-2:]), stride, one.device)
            for one, stride in zip(maps, self.strides, strict=True)
        ]
        total = sum(map(len, centers))
        number = torch.arange(len(maps), device=counts.device)
        return LocationPredictions(
            locations=torch.cat(centers),
            levels=number.repeat_interleave(counts, output_size=total),
            strides=strides.repeat_interleave(counts, output_size=total),
            logits=_flat(logits),
            distances=_flat(distances),
            centerness=_flat(centerness)[..., 0],
            kernels=_flat(kernels),
            features=self.mask_branch(maps[:MAPS]),
            feature_stride=self.strides[0],
        )


def _stride(name: str, shapes: dict[str, ShapeSpec]) -> int:
    if name not in shapes:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES has {name}, but the backbone gives "
            f"{', '.join(shapes)}; choose among these"
        )
    return shapes[name].stride


def _flat(maps: list[Tensor]) -> Tensor:
    """Maps of all levels, each (B, D, h, w), as (B, P, D)."""
    return torch.cat([one.flatten(2).mT for one in maps], 1)
