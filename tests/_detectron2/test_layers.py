from collections import OrderedDict

import pytest
import torch
from detectron2 import layers
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.layers.batch_norm import LayerNorm
from torch import nn
from torch.nn import functional as F

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="the sentence is the embedded engine's"
)


def used_batch_norm(channels: int = 4) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data.uniform_(0.5, 2)
    return norm.eval()


def test_conv_applies_norm_then_activation():
    norm = used_batch_norm()
    conv = Conv2d(3, 4, 3, padding=1, norm=norm, activation=F.relu)
    x = torch.randn(2, 3, 5, 5)
    expected = F.relu(norm(F.conv2d(x, conv.weight, conv.bias, padding=1)))
    torch.testing.assert_close(conv(x), expected)
    assert list(conv.state_dict())[:3] == ["weight", "bias", "norm.weight"]


@pytest.mark.parametrize("training", [True, False])
def test_conv_of_an_empty_batch_is_empty(training):
    conv = Conv2d(3, 4, 3, stride=2, norm=nn.BatchNorm2d(4), activation=F.relu).train(training)
    x = torch.zeros(0, 3, 9, 9, requires_grad=True)
    conv(x).sum().backward()
    assert conv(x).shape == (0, 4, 4, 4) and conv.weight.grad.abs().sum() == 0


def test_small_wrappers():
    x = torch.eye(2)
    assert layers.cat([x]) is x and layers.cat([x, x], dim=1).shape == (2, 4)
    assert layers.interpolate(x[None, None], scale_factor=2).shape == (1, 1, 4, 4)
    assert ShapeSpec(channels=3) == ShapeSpec(3, None, None, None) != ShapeSpec(4)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm),
        (nn.InstanceNorm2d, nn.InstanceNorm2d),
    ],
)
def test_get_norm_by_name_or_maker(name, kind):
    norm = get_norm(name, 64)
    assert type(norm) is kind
    if name != "SyncBN" and name != "nnSyncBN":
        assert norm(torch.randn(2, 64, 4, 4)).shape == (2, 64, 4, 4)


def test_get_norm_knows_none_and_refuses_others():
    assert get_norm("", 4) is None and get_norm(None, 4) is None
    with pytest.raises(KeyError, match="Batch"):
        get_norm("Batch", 4)


def test_group_norm_has_32_groups():
    assert get_norm("GN", 64).num_groups == 32


def test_channel_layer_norm_equals_torchs_per_pixel():
    norm, x = LayerNorm(6), torch.randn(2, 6, 3, 4)
    norm.weight.data.uniform_(), norm.bias.data.uniform_()
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, eps=1e-6)
    torch.testing.assert_close(norm(x), expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("with_gradient", [True, False])
def test_frozen_batch_norm_equals_batch_norm_in_eval(with_gradient):
    norm = used_batch_norm()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm).train()
    x = torch.randn(2, 4, 3, 3, requires_grad=with_gradient)
    torch.testing.assert_close(frozen(x), norm(x))
    assert not list(frozen.parameters()) and frozen.eps == norm.eps
    if with_gradient:
        ours, theirs = (torch.autograd.grad(n(x).square().sum(), x)[0] for n in (frozen, norm))
        torch.testing.assert_close(ours, theirs)


def test_frozen_batch_norm_keeps_half_precision():
    x = torch.randn(1, 4, 2, 2, requires_grad=True).bfloat16()
    assert FrozenBatchNorm2d(4)(x).dtype == torch.bfloat16


def test_fresh_frozen_batch_norm_is_the_identity():
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(FrozenBatchNorm2d(4)(x), x)


def test_freezing_replaces_every_batch_norm_inside():
    model = nn.Sequential(used_batch_norm(), nn.Sequential(nn.SyncBatchNorm(3), nn.GroupNorm(1, 3)))
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert frozen is model and type(model[1][1]) is nn.GroupNorm
    assert type(model[0]) is type(model[1][0]) is FrozenBatchNorm2d


@pytest.mark.parametrize("version", [None, 1])
def test_old_frozen_batch_norms_without_statistics_load(version):
    values = OrderedDict(weight=torch.full((4,), 2.0), bias=torch.ones(4))
    values._metadata = {"": {"version": version}} if version else {}
    norm = FrozenBatchNorm2d(4)
    norm.load_state_dict(values)
    assert norm.running_mean.tolist() == [0] * 4 and norm.running_var.tolist() == [1] * 4


def test_new_frozen_batch_norms_without_statistics_are_incomplete():
    values = FrozenBatchNorm2d(4).state_dict()
    del values["running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        FrozenBatchNorm2d(4).load_state_dict(values)


def test_frozen_block_trains_nothing():
    class Block(layers.CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, stride=2)
            self.conv = Conv2d(3, 4, 3, norm=nn.BatchNorm2d(4))

    block = Block()
    assert block.freeze() is block and (block.in_channels, block.stride) == (3, 2)
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert type(block.conv.norm) is FrozenBatchNorm2d


@embedded_only
def test_unknown_norm_is_told_the_known_ones():
    with pytest.raises(KeyError, match="Batch.*use one of BN, SyncBN.*LN"):
        get_norm("Batch", 4)
