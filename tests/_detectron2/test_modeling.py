import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    ResNet,
    SemanticSegmentor,
    build_backbone,
    build_model,
    build_sem_seg_head,
    detector_postprocess,
)
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="the sentence is the embedded engine's"
)
REFUSED = (ValueError, AssertionError, KeyError)
ALL_FEATURES = ["stem", "res2", "res3", "res4", "res5"]


def resnet_cfg(depth: int = 18, freeze_at: int = 0, **options):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    options = {"OUT_FEATURES": ALL_FEATURES, "STRIDE_IN_1X1": False} | options
    if depth < 50:
        options = {"RES2_OUT_CHANNELS": 64} | options
    for key, value in {"DEPTH": depth, **options}.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def torchvision_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """torchvision's ResNet weights under detectron2's names."""
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith("fc."):
            continue
        if name.startswith("layer"):
            stage, rest = int(name[5]) + 1, name[7:]
            name = f"res{stage}.{rest}"
        else:
            name = f"stem.{name}"
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        for i in "123":
            name = name.replace(f"bn{i}", f"conv{i}.norm")
        weights[name] = value
    return weights


def fill_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_resnet_gives_torchvisions_features_with_torchvisions_weights(depth, norm):
    reference = torchvision.models.get_model(f"resnet{depth}").eval()
    fill_statistics(reference)
    backbone = build_backbone(resnet_cfg(depth, NORM=norm)).eval()
    weights = torchvision_weights(reference)
    if norm == "FrozenBN":
        weights = {name: v for name, v in weights.items() if "num_batches" not in name}
    backbone.load_state_dict(weights)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = backbone(x)
        y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        torch.testing.assert_close(features["stem"], y)
        for i in range(1, 5):
            y = getattr(reference, f"layer{i}")(y)
            torch.testing.assert_close(features[f"res{i + 1}"], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnet_of_each_depth_has_torchvisions_parameters(depth):
    with torch.device("meta"):
        reference = torchvision.models.get_model(f"resnet{depth}")
        backbone = build_backbone(resnet_cfg(depth, NORM="BN"))
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    expected = {name: value.shape for name, value in torchvision_weights(reference).items()}
    assert shapes == expected


@pytest.mark.parametrize(
    "options, strides",
    [({}, (4, 4, 8, 16, 32)), ({"RES5_DILATION": 2}, (4, 4, 8, 16, 16))],
)
def test_resnet_output_shape_is_that_of_its_features(options, strides):
    backbone = build_backbone(resnet_cfg(50, **options))
    features = backbone(torch.zeros(1, 3, 64, 64))
    shapes = backbone.output_shape()
    assert list(shapes) == list(features) == ALL_FEATURES
    assert [shape.stride for shape in shapes.values()] == list(strides)
    for name, feature in features.items():
        side = 64 // shapes[name].stride
        assert feature.shape == (1, shapes[name].channels, side, side)


def test_resnext_options_reach_the_blocks():
    options = {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4, "STRIDE_IN_1X1": True, "NORM": "GN"}
    backbone = build_backbone(resnet_cfg(50, **options, STEM_OUT_CHANNELS=32))
    block = backbone.res3[0]
    assert block.conv2.groups == 32 and block.conv2.out_channels == 256
    assert block.conv1.stride == (2, 2) and block.conv2.stride == (1, 1)
    assert backbone.stem.out_channels == backbone.res2[0].in_channels == 32
    assert isinstance(block.conv1.norm, nn.GroupNorm)


def test_dilation_of_res5_keeps_the_field_of_view():
    block = build_backbone(resnet_cfg(50, RES5_DILATION=2)).res5[0]
    assert block.conv2.dilation == block.conv2.padding == (2, 2) and block.stride == 1


def test_stages_beyond_the_last_feature_are_left_out():
    backbone = build_backbone(resnet_cfg(18, OUT_FEATURES=["res3"]))
    assert [name for name, _ in backbone.named_children()] == ["stem", "res2", "res3"]
    assert list(backbone(torch.zeros(1, 3, 32, 32))) == ["res3"]


@pytest.mark.parametrize("freeze_at", range(7))
def test_freezing_stops_at_the_stage_asked_for(freeze_at):
    backbone = build_backbone(resnet_cfg(18, freeze_at, NORM="BN"))
    for i, name in enumerate(ALL_FEATURES):
        part = getattr(backbone, name)
        trained = i >= freeze_at
        assert all(p.requires_grad == trained for p in part.parameters()), name
        kinds = {type(m) for m in part.modules()} & {nn.BatchNorm2d, FrozenBatchNorm2d}
        assert kinds == ({nn.BatchNorm2d} if trained else {FrozenBatchNorm2d}), name


def test_every_trained_parameter_of_a_resnet_gets_a_gradient():
    backbone = build_backbone(resnet_cfg(50, freeze_at=2))
    backbone(torch.randn(1, 3, 64, 64))["res5"].square().mean().backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_resnet_classifier_pools_the_last_stage():
    net = ResNet(BasicStem(), ResNet.make_default_stages(18), 10, ["res5", "linear"]).eval()
    output = net(torch.randn(2, 3, 64, 64))
    expected = net.linear(output["res5"].mean(dim=(2, 3)))
    torch.testing.assert_close(output["linear"], expected)
    assert 0.005 < net.linear.weight.std() < 0.015


def test_convolutions_start_with_kaiming_normal_over_the_fan_out():
    weight = build_backbone(resnet_cfg(18)).res4[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (weight[:, 0].numel())) ** 0.5, rel=0.02)


def test_make_stage_gives_each_block_its_own_value():
    arguments = {"in_channels": 8, "out_channels": 16, "bottleneck_channels": 4}
    blocks = ResNet.make_stage(BottleneckBlock, 2, dilation_per_block=[1, 2], **arguments)
    assert [block.conv2.dilation for block in blocks] == [(1, 1), (2, 2)]
    assert blocks[0].shortcut is not None and blocks[1].shortcut is None
    with pytest.raises(REFUSED, match="dilation"):
        ResNet.make_stage(BottleneckBlock, 2, dilation_per_block=[1], **arguments)
    with pytest.raises(REFUSED, match="dilation"):
        ResNet.make_stage(BottleneckBlock, 2, dilation_per_block=[1, 2], dilation=1, **arguments)


@pytest.mark.parametrize(
    "depth, options, key",
    [
        (18, {"RES2_OUT_CHANNELS": 256}, "RES2_OUT_CHANNELS"),
        (18, {"RES5_DILATION": 2}, "RES5_DILATION"),
        (34, {"NUM_GROUPS": 2}, "NUM_GROUPS"),
        (50, {"RES5_DILATION": 3}, "(RES5_DILATION|res5_dilation)"),
        (18, {"DEFORM_ON_PER_STAGE": [True] * 4}, "DEFORM_ON_PER_STAGE"),
        (18, {"OUT_FEATURES": ["res9"]}, "stem"),
        (20, {}, "20"),
    ],
)
def test_impossible_resnets_are_refused(depth, options, key):
    with pytest.raises(REFUSED, match=key):
        build_backbone(resnet_cfg(depth, **options))


@embedded_only
def test_deformable_resnet_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="DEFORM_ON_PER_STAGE .* install the real detectron2"):
        build_backbone(resnet_cfg(50, DEFORM_ON_PER_STAGE=[False, True, True, True]))


def test_resnet_refuses_a_single_image():
    with pytest.raises(REFUSED, match="N, C, H, W"):
        build_backbone(resnet_cfg(18))(torch.zeros(3, 64, 64))


def test_backbone_takes_as_many_channels_as_pixel_mean():
    cfg = resnet_cfg(18)
    cfg.MODEL.PIXEL_MEAN = [1.0]
    assert build_backbone(cfg).stem.conv1.in_channels == 1
    assert build_backbone(cfg, ShapeSpec(channels=4)).stem.conv1.in_channels == 4


# Registries and builders


@BACKBONE_REGISTRY.register()
class EngineTestBackbone(Backbone):
    """The image itself, as feature "image"; wants sides that are multiples of 4."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self._out_features = ["image"]
        self._out_feature_channels = {"image": input_shape.channels}
        self._out_feature_strides = {"image": 1}

    def forward(self, x):
        return {"image": x}

    @property
    def size_divisibility(self):
        return 4


@SEM_SEG_HEADS_REGISTRY.register()
class EngineTestHead(nn.Module):
    """Scores: the image, scaled by a parameter. Loss: how many labels are not ignored."""

    ignore_value = 200

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(input_shape["image"].channels, 1, 1))

    def forward(self, features, targets=None):
        if self.training:
            return None, {"loss_count": (targets != self.ignore_value).sum() * self.scale.mean()}
        return features["image"] * self.scale, {}


@BACKBONE_REGISTRY.register()
def engine_test_no_backbone(cfg, input_shape):
    return nn.Identity()


def segmentor_cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "EngineTestBackbone"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "EngineTestHead"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]
    return cfg


def inputs() -> list[dict]:
    images = [torch.rand(3, 5, 6) * 9, torch.full((3, 3, 6), 4, dtype=torch.uint8)]
    return [{"image": x, "sem_seg": torch.ones(x.shape[1:], dtype=torch.long)} for x in images]


def test_segmentor_returns_scores_at_the_wanted_size():
    model = build_model(segmentor_cfg()).eval()
    batch = inputs()
    batch[1] |= {"height": 6, "width": 12}
    first, second = (result["sem_seg"] for result in model(batch))
    normalised = (batch[0]["image"] - model.pixel_mean) / model.pixel_std
    torch.testing.assert_close(first, normalised)
    assert second.shape == (3, 6, 12)
    torch.testing.assert_close(second.mean(dim=(1, 2)), torch.tensor([3.0, 1.0, 0.25]))


def test_segmentor_pads_labels_with_the_heads_ignore_value():
    losses = build_model(segmentor_cfg()).train()(inputs())
    assert losses["loss_count"].item() == 5 * 6 + 3 * 6


def test_segmentor_infers_without_labels():
    model = build_model(segmentor_cfg()).eval()
    assert [set(result) for result in model([{"image": inputs()[0]["image"]}])] == [{"sem_seg"}]


def test_segmentor_can_be_made_without_a_config():
    cfg = segmentor_cfg()
    backbone = build_backbone(cfg)
    model = SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=build_sem_seg_head(cfg, backbone.output_shape()),
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[1.0, 1.0, 1.0],
    )
    assert model.device == torch.device("cpu") and list(model.state_dict()) == [
        "sem_seg_head.scale"
    ]


def test_model_moves_to_the_device():
    cfg = segmentor_cfg()
    cfg.MODEL.DEVICE = "meta"
    assert build_model(cfg).device == torch.device("meta")


def test_unknown_names_are_key_errors_that_say_the_name():
    cfg = segmentor_cfg()
    cfg.MODEL.BACKBONE.NAME = cfg.MODEL.SEM_SEG_HEAD.NAME = cfg.MODEL.META_ARCHITECTURE = "Nope"
    for build in (build_backbone, build_model, lambda cfg: build_sem_seg_head(cfg, {})):
        with pytest.raises(KeyError, match="Nope"):
            build(cfg)
    assert "SemanticSegmentor" in META_ARCH_REGISTRY


@embedded_only
def test_unknown_names_are_told_the_near_ones():
    cfg = segmentor_cfg()
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmenter"
    with pytest.raises(KeyError, match="MODEL.META_ARCHITECTURE .* SemanticSegmentor"):
        build_model(cfg)


def test_what_is_no_backbone_is_refused():
    cfg = segmentor_cfg()
    cfg.MODEL.BACKBONE.NAME = "engine_test_no_backbone"
    with pytest.raises((TypeError, AssertionError)):
        build_backbone(cfg)


# Results at another size


def test_sem_seg_postprocess_cuts_the_padding_then_resizes():
    scores = torch.full((2, 8, 8), 9.0)
    scores[:, :4, :6] = torch.tensor([1.0, 2.0])[:, None, None]
    resized = sem_seg_postprocess(scores, (4, 6), 10, 12)
    torch.testing.assert_close(resized, torch.tensor([1.0, 2.0])[:, None, None].expand(2, 10, 12))


def test_detector_postprocess_scales_clips_and_drops_boxes():
    boxes = Boxes([[1.0, 2, 5, 6], [3, 3, 3, 3], [-5, -5, 50, 50]])
    found = Instances((10, 20), pred_boxes=boxes, scores=torch.tensor([0.3, 0.2, 0.1]))
    result = detector_postprocess(found, 20, 10)
    assert result.image_size == (20, 10) and torch.equal(result.scores, torch.tensor([0.3, 0.1]))
    assert result.pred_boxes.tensor.tolist() == [[0.5, 4, 2.5, 12], [0, 0, 10, 20]]
    with pytest.raises(REFUSED, match="boxes"):
        detector_postprocess(Instances((10, 20), scores=torch.ones(1)), 5, 5)


@embedded_only
@pytest.mark.parametrize("kind", [BitMasks, torch.Tensor.bool, torch.Tensor.float])
def test_detector_postprocess_resizes_whole_image_masks(kind):
    masks = torch.zeros(2, 10, 20)
    masks[0, 2:6, 4:8] = masks[1] = 1
    boxes = Boxes([[4.0, 2, 8, 6], [0, 0, 0, 0]])
    found = Instances((10, 20), pred_boxes=boxes, pred_masks=kind(masks))
    result = detector_postprocess(found, 20, 40)
    expected = torch.zeros(1, 20, 40, dtype=torch.bool)
    expected[0, 4:12, 8:16] = True
    ring = (result.pred_masks ^ expected).sum()
    assert result.pred_masks.shape == (1, 20, 40) and ring <= 4, ring
    assert boxes.tensor.tolist()[0] == [4, 2, 8, 6]


@embedded_only
def test_detector_postprocess_refuses_masks_cut_to_boxes():
    found = Instances(
        (9, 9), pred_boxes=Boxes([[0, 0, 5, 5]]), pred_masks=torch.rand(1, 1, 28, 28)
    )
    with pytest.raises(ValueError, match="whole image.*real detectron2"):
        detector_postprocess(found, 9, 9)
