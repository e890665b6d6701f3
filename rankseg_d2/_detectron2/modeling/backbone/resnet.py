"""ResNet and ResNeXt, with the parameter names of detectron2's model zoo."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from .backbone import Backbone
from .build import BACKBONE_REGISTRY

ResNetBlockBase = CNNBlockBase
BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)
}


class BasicBlock(CNNBlockBase):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18 and -34."""

    def __init__(self, in_channels, out_channels, *, stride=1, norm="BN"):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)
        _init_convs(self.conv1, self.conv2, self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(F.relu_(self.conv1(x)))
        residual += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual)


class BottleneckBlock(CNNBlockBase):
    """1x1, 3x3, 1x1 convolutions and a shortcut: the block of ResNet-50, -101 and -152."""

    def __init__(
        self, in_channels, out_channels, *, bottleneck_channels, stride=1, num_groups=1,
        norm="BN", stride_in_1x1=False, dilation=1,
    ):
        super().__init__(in_channels, out_channels, stride)
        # MSRA's weights have the stride in the first 1x1, torchvision's in the 3x3.
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            bottleneck_channels, bottleneck_channels, 3, norm, stride_3x3, num_groups, dilation
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)
        _init_convs(self.conv1, self.conv2, self.conv3, self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu_(self.conv2(F.relu_(self.conv1(x))))
        residual = self.conv3(residual)
        residual += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual)


class BasicStem(CNNBlockBase):
    """A 7x7 convolution with stride 2 and a 3x3 max pooling with stride 2."""

    def __init__(self, in_channels=3, out_channels=64, norm="BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)
        _init_convs(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and stages "res2", "res3", ...; with `num_classes` also the classifier "linear".

    `out_features` names what the forward pass returns, by default the last; stages beyond it
    are left out. `freeze_at` is that of `freeze`.
    """

    def __init__(self, stem, stages, num_classes=None, out_features=None, freeze_at=0):
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        names = ["stem", *(f"res{i}" for i in range(2, 2 + len(stages)))]
        if num_classes is not None:
            names.append("linear")
        if out_features is None:
            out_features = names[-1:]
        if not out_features or not set(out_features) <= set(names):
            raise ValueError(
                f"out_features of a ResNet (MODEL.RESNETS.OUT_FEATURES) are some of {names}, "
                f"not {list(out_features)}"
            )
        stages = stages[: max(names.index(name) for name in out_features)]

        self._out_features = out_features
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        self.stage_names = tuple(names[1 : 1 + len(stages)])
        self.stages = []
        stride, channels = stem.stride, stem.out_channels
        for name, blocks in zip(self.stage_names, stages, strict=True):
            stride *= math.prod(block.stride for block in blocks)
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = channels
            self.add_module(name, nn.Sequential(*blocks))
            self.stages.append(getattr(self, name))
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.dim() != 4:
            raise ValueError(f"a ResNet takes images (N, C, H, W), not {tuple(x.shape)}")
        x = self.stem(x)
        features = {"stem": x}
        for name in self.stage_names:
            x = features[name] = getattr(self, name)(x)
        if "linear" in self._out_features:
            features["linear"] = self.linear(self.avgpool(x).flatten(1))
        return {name: y for name, y in features.items() if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freeze the first parts: 1 the stem, 2 the stem and res2, and so on; 0 nothing."""
        if freeze_at >= 1:
            self.stem.freeze()
        for stage in self.stages[: max(freeze_at - 1, 0)]:
            for block in stage:
                block.freeze()
        return self

    @staticmethod
    def make_stage(block_class, num_blocks, *, in_channels, out_channels, **kwargs) -> list:
        """Blocks for one stage. A `kwargs` name `x_per_block` lists one `x` for each block."""
        blocks = []
        for i in range(num_blocks):
            arguments = {}
            for name, value in kwargs.items():
                if name.endswith("_per_block"):
                    name = name.removesuffix("_per_block")
                    if name in kwargs or len(value) != num_blocks:
                        raise ValueError(
                            f"make_stage takes {name} or a list {name}_per_block of {num_blocks}"
                        )
                    value = value[i]
                arguments[name] = value
            channels = {"in_channels": in_channels, "out_channels": out_channels}
            blocks.append(block_class(**channels, **arguments))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(depth, block_class=None, **kwargs) -> list[list]:
        """The four stages of the ResNet with that many layers: 18, 34, 50, 101 or 152."""
        if depth < 50:
            return _make_stages(depth, block_class or BasicBlock, 64, 64, **kwargs)
        per_stage = {"bottleneck_channels": (64, 128, 256, 512)}
        return _make_stages(depth, block_class or BottleneckBlock, 64, 256, per_stage, **kwargs)


make_stage = ResNet.make_stage


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg, input_shape: ShapeSpec) -> ResNet:
    """The ResNet that MODEL.RESNETS describes, frozen up to MODEL.BACKBONE.FREEZE_AT."""
    options = cfg.MODEL.RESNETS
    _check_options(options)
    stem = BasicStem(input_shape.channels, options.STEM_OUT_CHANNELS, options.NORM)
    channels = (options.STEM_OUT_CHANNELS, options.RES2_OUT_CHANNELS)
    if options.DEPTH < 50:
        stages = _make_stages(options.DEPTH, BasicBlock, *channels, norm=options.NORM)
    else:
        dilation, width = options.RES5_DILATION, options.NUM_GROUPS * options.WIDTH_PER_GROUP
        per_stage = {
            "bottleneck_channels": [width * 2**i for i in range(4)],
            "dilation": (1, 1, 1, dilation),
        }
        stages = _make_stages(
            options.DEPTH, BottleneckBlock, *channels, per_stage, (1, 2, 2, 2 // dilation),
            norm=options.NORM, num_groups=options.NUM_GROUPS, stride_in_1x1=options.STRIDE_IN_1X1,
        )
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_AT
    return ResNet(stem, stages, out_features=options.OUT_FEATURES, freeze_at=freeze_at)


def _check_options(options) -> None:
    if any(options.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE asks for deformable convolutions, which the "
            "embedded engine has not; set all of it to False, or install the real detectron2"
        )
    allowed = {"DEPTH": tuple(BLOCKS_PER_STAGE), "RES5_DILATION": (1, 2)}
    if options.DEPTH < 50:
        allowed |= {"RES2_OUT_CHANNELS": (64,), "RES5_DILATION": (1,), "NUM_GROUPS": (1,)}
    for key, values in allowed.items():
        if options[key] not in values:
            raise ValueError(
                f"MODEL.RESNETS.{key} must be {' or '.join(map(str, values))}, not "
                f"{options[key]} (the DEPTH is {options.DEPTH})"
            )


def _make_stages(
    depth, block_class, in_channels, out_channels, per_stage=None, strides=(1, 2, 2, 2), **kwargs
) -> list[list]:
    """Four stages, each with twice the channels of the one before; per_stage: name -> 4 values."""
    stages = []
    for i, count in enumerate(BLOCKS_PER_STAGE[depth]):
        own = {name: values[i] for name, values in (per_stage or {}).items()}
        own["stride_per_block"] = [strides[i]] + [1] * (count - 1)
        channels = {"in_channels": in_channels, "out_channels": out_channels * 2**i}
        stages.append(ResNet.make_stage(block_class, count, **channels, **own, **kwargs))
        in_channels = out_channels * 2**i
    return stages


def _conv(in_channels, out_channels, kernel_size, norm, stride=1, groups=1, dilation=1) -> Conv2d:
    return Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=dilation * (kernel_size // 2),
        dilation=dilation, groups=groups, bias=False, norm=get_norm(norm, out_channels),
    )


def _shortcut(in_channels, out_channels, stride, norm) -> Conv2d | None:
    if in_channels == out_channels:
        return None
    return _conv(in_channels, out_channels, 1, norm, stride=stride)


def _init_convs(*convs: Conv2d | None) -> None:
    for conv in convs:
        if conv is not None:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
