"""DeepLab's ResNet: a stem of three 3x3 convolutions (R50c, R101c) and dilated last stages."""

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ResNet
from detectron2.modeling.backbone import BasicStem, BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ..registering import register

_NUM_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class DeepLabStem(CNNBlockBase):
    """Three 3x3 convolutions, the first with stride 2, and a max pooling with stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 128, norm="BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels // 2, norm, stride=2)
        self.conv2 = _conv(out_channels // 2, out_channels // 2, norm)
        self.conv3 = _conv(out_channels // 2, out_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


_STEMS = {"basic": BasicStem, "deeplab": DeepLabStem}


@register(BACKBONE_REGISTRY)
def build_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """The ResNet that MODEL.RESNETS describes, frozen up to MODEL.BACKBONE.FREEZE_AT."""
    options = cfg.MODEL.RESNETS
    _check_options(options)
    stem = _STEMS[options.STEM_TYPE]
    stem = stem(input_shape.channels, options.STEM_OUT_CHANNELS, options.NORM)
    in_channels, out_channels = options.STEM_OUT_CHANNELS, options.RES2_OUT_CHANNELS
    width = options.NUM_GROUPS * options.WIDTH_PER_GROUP
    stages = []
    for i, dilation in enumerate((1, 1, options.RES4_DILATION, options.RES5_DILATION)):
        count = _NUM_BLOCKS[options.DEPTH][i]
        grid = options.RES5_MULTI_GRID if i == 3 else [1] * count
        dilations = [dilation * factor for factor in grid]
        # The key is ours: a config of detectron2's DeepLab does not have it.
        if options.get("CONTRACT_DILATION", False) and dilation > 1:
            dilations[0] = dilation // 2 * grid[0]
        # A dilated stage has no stride.
        stride = 2 if i > 0 and dilation == 1 else 1
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                count,
                in_channels=in_channels,
                out_channels=out_channels,
                bottleneck_channels=width * 2**i,
                stride_per_block=[stride] + [1] * (count - 1),
                dilation_per_block=dilations,
                num_groups=options.NUM_GROUPS,
                norm=options.NORM,
                stride_in_1x1=options.STRIDE_IN_1X1,
            )
        )
        in_channels, out_channels = out_channels, 2 * out_channels
    model = ResNet(stem, stages, out_features=options.OUT_FEATURES)
    return model.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)


def _check_options(options: CfgNode) -> None:
    allowed = {
        "STEM_TYPE": tuple(_STEMS),
        "DEPTH": tuple(_NUM_BLOCKS),
        "RES4_DILATION": (1, 2),
        "RES5_DILATION": (4,) if options.RES4_DILATION == 2 else (1, 2, 4),
    }
    for key, values in allowed.items():
        if options[key] not in values:
            given = f" (RES4_DILATION is {options.RES4_DILATION})" if key == "RES5_DILATION" else ""
            raise ValueError(
                f"MODEL.RESNETS.{key} of build_resnet_deeplab_backbone must be "
                f"{' or '.join(map(str, values))}{given}, got {options[key]}"
            )
    if len(options.RES5_MULTI_GRID) != 3:
        raise ValueError(
            "MODEL.RESNETS.RES5_MULTI_GRID must have one factor for each of the 3 blocks of res5, "
            f"got {list(options.RES5_MULTI_GRID)}"
        )
    if any(options.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE asks for deformable convolutions, which "
            "build_resnet_deeplab_backbone does not have; set all of it to False"
        )


def _conv(in_channels: int, out_channels: int, norm, stride: int = 1) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
