import pytest
import torch
from detectron2 import layers as real_layers
from detectron2 import modeling as real
from detectron2 import structures as real_structures
from detectron2.config import get_cfg
from detectron2.modeling import postprocessing as real_postprocessing
from detectron2.modeling.backbone import resnet as real_resnet
from torch import nn

import rankseg_d2._detectron2.config as our_config
from rankseg_d2._detectron2 import layers as our_layers
from rankseg_d2._detectron2 import modeling as ours
from rankseg_d2._detectron2 import structures as our_structures
from rankseg_d2._detectron2.modeling import postprocessing as our_postprocessing
from rankseg_d2._detectron2.modeling.backbone import resnet as our_resnet

ALL_FEATURES = ["stem", "res2", "res3", "res4", "res5"]
OPTIONS = [
    {},
    {"STRIDE_IN_1X1": False},
    {"RES5_DILATION": 2},
    {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4},
    {"STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 128},
    {"OUT_FEATURES": ["res4", "res2"]},
    {"OUT_FEATURES": ["stem"]},
]


def both_resnets(depth, freeze_at=0, **options):
    options = {"DEPTH": depth, "OUT_FEATURES": ALL_FEATURES} | options
    if depth < 50:
        options["RES2_OUT_CHANNELS"] = 64
    backbones = []
    for config, module in ((get_cfg(), real), (our_config.get_cfg(), ours)):
        config.MODEL.BACKBONE.FREEZE_AT = freeze_at
        for key, value in options.items():
            config.MODEL.RESNETS[key] = value
        torch.manual_seed(0)
        backbones.append(module.build_backbone(config))
    return backbones


def randomize_norms(model):
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if ".norm." in name and value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
        if name.endswith("running_mean"):
            value.sub_(1.0)


def assert_same_features(first, second, size=64):
    # In double precision, in which different orders of the same sums hardly differ.
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        features, expected = first.double()(x), second.double()(x)
    assert list(features) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            features[name], value, rtol=1e-6, atol=1e-6 * value.std().item(), msg=name
        )


def shapes(model):
    return [(name, value.shape) for name, value in model.state_dict().items()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "depth, norm",
    [(50, "BN"), (50, "FrozenBN")]
    + [(18, norm) for norm in ("BN", "FrozenBN", "GN", "LN", "")],
)
def test_resnet_is_the_same_with_each_norm(depth, norm, training):
    second, first = both_resnets(depth, NORM=norm)
    assert shapes(first) == shapes(second)
    randomize_norms(second)
    first.load_state_dict(second.state_dict())
    assert_same_features(first.train(training), second.train(training))
    # The running statistics moved alike, too.
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_resnet_is_the_same_with_each_option(options):
    second, first = both_resnets(50, **options)
    assert shapes(first) == shapes(second)
    assert vars(first)["stage_names"] == vars(second)["stage_names"]
    as_dicts = ({k: vars(s) for k, s in b.output_shape().items()} for b in (first, second))
    assert next(as_dicts) == next(as_dicts)
    first.load_state_dict(second.state_dict())
    assert_same_features(first, second)


@pytest.mark.parametrize("depth", [34, 101])
def test_resnet_of_other_depths_is_the_same(depth):
    second, first = both_resnets(depth)
    first.load_state_dict(second.state_dict())
    assert_same_features(first, second)


def test_resnet_152_has_the_same_keys_and_shapes():
    with torch.device("meta"):
        second, first = both_resnets(152)
    assert shapes(first) == shapes(second)


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_starts_with_the_same_weights_from_the_same_seed(depth):
    second, first = both_resnets(depth)
    for (name, value), expected in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("freeze_at", range(7))
def test_resnet_freezes_the_same(freeze_at):
    second, first = both_resnets(18, freeze_at, NORM="BN")
    kept = [
        [(n, p.requires_grad) for n, p in backbone.named_parameters()]
        for backbone in (first, second)
    ]
    kinds = [[type(m).__name__ for m in backbone.modules()] for backbone in (first, second)]
    assert kept[0] == kept[1] and kinds[0] == kinds[1]


def test_resnet_gradients_are_the_same():
    second, first = both_resnets(50, freeze_at=2)
    first.load_state_dict(second.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for backbone in (first, second):
        backbone(x)["res5"].square().mean().backward()
    for (name, parameter), expected in zip(
        first.named_parameters(), second.parameters(), strict=True
    ):
        if expected.grad is None:
            assert parameter.grad is None, name
        else:
            scale = expected.grad.std().item()
            torch.testing.assert_close(
                parameter.grad, expected.grad, rtol=1e-4, atol=1e-4 * scale, msg=name
            )


@pytest.mark.parametrize("depth", [18, 50])
def test_default_stages_with_a_classifier_are_the_same(depth):
    nets = []
    for module in (our_resnet, real_resnet):
        stages = module.ResNet.make_default_stages(depth, norm="GN")
        nets.append(module.ResNet(module.BasicStem(norm="GN"), stages, 10, ["res5", "linear"]))
    first, second = nets
    assert shapes(first) == shapes(second)
    first.load_state_dict(second.state_dict())
    assert_same_features(first, second)


# Layers


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN", "LN", "SyncBN", "nnSyncBN", ""])
def test_norms_are_the_same(norm):
    first, second = our_layers.get_norm(norm, 64), real_layers.get_norm(norm, 64)
    assert type(first).__name__ == type(second).__name__
    if first is None or "Sync" in norm:
        return
    assert shapes(first) == shapes(second)
    for value, expected in zip(
        first.state_dict().values(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected)
    x = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(first(x), second(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("version", [None, 1, 2, 3])
@pytest.mark.parametrize("complete", [True, False])
def test_frozen_batch_norm_loads_old_state_the_same(version, complete):
    norms, outcomes = [], []
    for module in (our_layers, real_layers):
        state = nn.BatchNorm2d(4).state_dict()
        names = ["weight", "bias", "running_mean", "running_var"][: 4 if complete else 2]
        metadata = {"": {"version": version}} if version else {}
        state = type(state)((name, state[name] * 3) for name in names)
        state._metadata = metadata
        norms.append(module.FrozenBatchNorm2d(4))
        outcomes.append(norms[-1].load_state_dict(state, strict=False))
    assert outcomes[0] == outcomes[1]
    for name, value in norms[1].state_dict().items():
        assert torch.equal(norms[0].state_dict()[name], value), name
    assert norms[0].state_dict()._metadata == norms[1].state_dict()._metadata


def test_conv_is_the_same():
    convs = [
        module.Conv2d(4, 6, 3, stride=2, norm=module.get_norm("LN", 6), activation=torch.relu)
        for module in (our_layers, real_layers)
    ]
    convs[0].load_state_dict(convs[1].state_dict())
    x = torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(convs[0](x), convs[1](x))


# SemanticSegmentor and results


class ToyHead(nn.Module):
    """A convolution to 5 scores at stride 16; the loss is the cross entropy at full size."""

    ignore_value = 255

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(input_shape["res4"].channels, 5, 1)

    def forward(self, features, targets=None):
        scores = nn.functional.interpolate(self.conv(features["res4"]), scale_factor=16)
        if self.training:
            loss = nn.functional.cross_entropy(scores, targets, ignore_index=self.ignore_value)
            return None, {"loss_sem_seg": loss}
        return scores, {}


def test_segmentors_give_the_same_losses_and_results():
    models = []
    for config, module in ((our_config.get_cfg(), ours), (get_cfg(), real)):
        if "ParityToyHead" not in module.SEM_SEG_HEADS_REGISTRY:
            module.SEM_SEG_HEADS_REGISTRY._do_register("ParityToyHead", ToyHead)
        config.MODEL.DEVICE = "cpu"
        config.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        config.MODEL.SEM_SEG_HEAD.NAME = "ParityToyHead"
        config.MODEL.PIXEL_STD = [57.0, 58.0, 59.0]
        config.MODEL.RESNETS.DEPTH = 18
        config.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        models.append(module.build_model(config))
    first, second = models
    assert shapes(first) == shapes(second)
    first.load_state_dict(second.state_dict())
    generator = torch.Generator().manual_seed(0)

    def one(*size, **wanted):
        image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
        return {"image": image, "sem_seg": torch.randint(5, size), **wanted}

    # The backbone asks for no divisor: the largest sides give the padded size.
    batch = [one(64, 48, height=100, width=70), one(50, 96)]
    loss, expected = first.train()(batch), second.train()(batch)
    assert loss.keys() == expected.keys()
    torch.testing.assert_close(loss["loss_sem_seg"], expected["loss_sem_seg"])
    with torch.no_grad():
        for value, expected in zip(first.eval()(batch), second.eval()(batch), strict=True):
            assert value.keys() == expected.keys()
            torch.testing.assert_close(value["sem_seg"], expected["sem_seg"])


@pytest.mark.parametrize("name", ["pred_boxes", "proposal_boxes"])
def test_detector_postprocess_is_the_same(name):
    corners = torch.rand(9, 2, 2, generator=torch.Generator().manual_seed(0)) * 50 - 10
    boxes = corners.sort(dim=1).values.flatten(1)
    results = []
    for structures, module in (
        (our_structures, our_postprocessing),
        (real_structures, real_postprocessing),
    ):
        found = structures.Instances((30, 40), scores=torch.arange(9))
        found.set(name, structures.Boxes(boxes.clone()))
        results.append(str(module.detector_postprocess(found, 90, 31)))
    assert results[0] == results[1]


def test_sem_seg_postprocess_is_the_same():
    scores = torch.rand(4, 32, 32)
    value = our_postprocessing.sem_seg_postprocess(scores, (30, 25), 61, 50)
    expected = real_postprocessing.sem_seg_postprocess(scores, (30, 25), 61, 50)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
