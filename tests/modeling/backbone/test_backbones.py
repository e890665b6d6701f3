import json

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec, build_backbone
from support import golden
from torch import nn

from rankseg_d2.config import add_rankseg_config
from rankseg_d2.modeling.backbone import (
    D2SwinTransformer,
    TimmBackbone,
    build_resnet_deeplab_backbone,
    check_backbone,
)
from rankseg_d2.modeling.backbone.pyramid import change_stride
from rankseg_d2.modeling.backbone.swin import Block, relative_position_index, shift_mask

LEVELS = ["res2", "res3", "res4", "res5"]
RGB = ShapeSpec(channels=3)


def make_cfg(name, opts=()):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.MODEL.RESNETS.OUT_FEATURES = LEVELS
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", name, *opts])
    return cfg


def tiny_swin(**options):
    shape = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    return D2SwinTransformer(**shape | {"out_features": ("res2", "res3")} | options)


def sum_of_all(features):
    """A number to which each element contributes differently."""
    generator = torch.Generator().manual_seed(0)
    return sum((x * torch.randn(x.shape, generator=generator)).sum() for x in features.values())


def train_step(model, x):
    """The features, and the names of the parameters that got no gradient."""
    golden.fill(model, "spec")  # no zeros, which would make zero gradients
    features = model.train()(x)
    sum_of_all(features).backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    return features, [name for name, p in trained if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.fixture(scope="module")
def swin_t():
    return build_backbone(make_cfg("D2SwinTransformer")).eval()


def test_swin_has_the_names_and_shapes_of_upstream(swin_t):
    expected = json.loads((golden.DATA / "golden_swin_keys.json").read_text())
    ours = [
        [f"backbone.{name}", list(x.shape), str(x.dtype).removeprefix("torch.")]
        for name, x in swin_t.state_dict().items()
    ]
    assert ours == expected
    assert isinstance(swin_t, D2SwinTransformer)
    assert swin_t.size_divisibility == 32
    assert [(x.channels, x.stride) for x in swin_t.output_shape().values()] == [
        (96, 4), (192, 8), (384, 16), (768, 32)
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["spec", "div"])
def test_swin_gives_the_numbers_of_upstream(swin_t, variant):
    golden.fill(swin_t, variant, prefix="backbone.")
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    batch = torch.zeros(2, 3, 160, 192)
    for i, name in enumerate(("image_A", "image_B")):
        image = (golden.inputs()[name] - mean) / std
        batch[i, :, : image.shape[1], : image.shape[2]] = image
    with torch.no_grad():
        features = swin_t(batch)
    expected = golden.load("golden_swin_features.npz")
    assert list(features) == LEVELS
    for name, feature in features.items():
        assert expected[f"{variant}/{name}"].diff(feature)[1] < 1e-4, name


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 47), (64, 64)])
def test_swin_takes_any_size_and_rounds_up(size):
    model = tiny_swin(pretrain_size=32).eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, *size))
    for (name, x), stride in zip(features.items(), (4, 8), strict=True):
        assert x.shape[-2:] == tuple(-(-side // stride) for side in size), name
        assert x.isfinite().all()


def test_swin_bases_and_sizes_come_from_the_config():
    opts = ["MODEL.SWIN.EMBED_DIM", 128, "MODEL.SWIN.DEPTHS", [2, 2, 18, 2]]
    opts += ["MODEL.SWIN.NUM_HEADS", [4, 8, 16, 32], "MODEL.SWIN.WINDOW_SIZE", 12]
    opts += ["MODEL.SWIN.PRETRAIN_IMG_SIZE", 384, "MODEL.SWIN.APE", True]
    with torch.device("meta"):
        model = D2SwinTransformer(make_cfg("D2SwinTransformer", opts), RGB)
    assert model.absolute_pos_embed.shape == (1, 128, 96, 96)
    assert model.layers[2].blocks[17].attn.relative_position_bias_table.shape == (23**2, 16)
    assert model.layers[2].blocks[17].shift == 6
    # The paper says 88 million with the classifier, which has 1025 * 1000.
    parameters = sum(p.numel() for p in model.parameters()) - model.absolute_pos_embed.numel()
    assert parameters == pytest.approx(88e6 - 1.025e6, rel=0.005)


def test_swin_without_the_last_levels_leaves_their_stages_out():
    model = tiny_swin(out_features=("res2",))
    assert list(model.output_shape()) == list(model(torch.zeros(1, 3, 16, 16))) == ["res2"]
    assert not [name for name in model.state_dict() if name.startswith(("layers.1", "norm1"))]


def test_shift_mask_separates_what_were_no_neighbours():
    height, width, size, shift = 6, 7, 4, 2
    mask = shift_mask(height, width, size, shift, "cpu")
    assert mask.shape == (4, 16, 16)
    for window in range(4):
        top, left = divmod(window, 2)
        tokens = [(4 * top + i, 4 * left + j) for i in range(4) for j in range(4)]
        for a, (row, column) in enumerate(tokens):
            for b, (other_row, other_column) in enumerate(tokens):
                # Rolled coordinates from 8 - shift on are those that came from the other end.
                wrapped = (row >= 6) != (other_row >= 6) or (column >= 6) != (other_column >= 6)
                assert mask[window, a, b] == (-100 if wrapped else 0)


def test_relative_position_index_depends_on_the_offset_alone():
    index = relative_position_index(3)
    position = [(i // 3, i % 3) for i in range(9)]
    for a, (row, column) in enumerate(position):
        for b, (other_row, other_column) in enumerate(position):
            assert index[a, b] == (row - other_row + 2) * 5 + (column - other_column + 2)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        model = tiny_swin(use_checkpoint=use_checkpoint, drop_path_rate=0.5, attn_drop_rate=0.1)
        sum_of_all(model.train()(torch.randn(3, 3, 40, 24))).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    block = Block(8, 2, 4, 0, drop_path=0.25, mlp_ratio=2.0, drop_rate=0.0)
    x = torch.ones(4000, 2, 2, 8)
    kept = block.train().drop(x)
    assert set(kept.unique().tolist()) == {0.0, kept.max().item()}
    assert (kept == kept[:, :1, :1, :1]).all()
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval().drop(x), x)


def test_swin_runs_in_bfloat16():
    model = tiny_swin().eval()
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            features = model(x)
    for name, feature in features.items():
        assert (feature - expected[name]).abs().mean() < 0.05 * expected[name].std()


@pytest.mark.parametrize("options", [{}, {"pretrain_size": 16, "qkv_bias": False, "qk_scale": 0.2}])
def test_every_parameter_of_swin_gets_a_gradient(options):
    assert train_step(tiny_swin(**options), torch.randn(4, 3, 40, 40))[1] == []


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.SWIN.OUT_FEATURES", ["p2"]], "OUT_FEATURES must be some of res2, .* got .'p2'"),
        (["MODEL.SWIN.NUM_HEADS", [3, 6]], r"NUM_HEADS must have one number per stage"),
        (["MODEL.SWIN.NUM_HEADS", [5, 6, 12, 24]], "5 heads cannot share the 96 channels of res2"),
    ],
)
def test_swin_says_which_key_is_wrong(opts, message):
    with pytest.raises(ValueError, match=message):
        D2SwinTransformer(make_cfg("D2SwinTransformer", opts), RGB)


@pytest.mark.parametrize(
    "name, channels, seen",
    [
        ("resnet18", [64, 128, 256, 512], (64, 96)),
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768], (64, 96)),  # gives (B, h, w, C)
        ("shvit_s1", [32, 64, 128, 224], (64, 96)),  # strides 16, 32, 64
        ("vit_tiny_patch16_224", [48, 96, 192, 192], (64, 96)),
        ("vit_small_patch14_dinov2", [96, 192, 384, 384], (56, 84)),  # 14 / 16 of the image
    ],
)
def test_timm_model_gives_four_levels_and_trains_all_parameters(name, channels, seen):
    model = build_backbone(make_cfg("TimmBackbone", ["MODEL.TIMM.NAME", name]))
    assert model.size_divisibility == 32
    assert [(x.channels, x.stride) for x in model.output_shape().values()] == list(
        zip(channels, (4, 8, 16, 32), strict=True)
    )
    forward, sizes = model.model.forward_intermediates, []

    def watched(x, **kwargs):
        sizes.append(x.shape[-2:])
        return forward(x, **kwargs)

    model.model.forward_intermediates = watched
    features, without_gradient = train_step(model, torch.randn(2, 3, 64, 96))
    assert without_gradient == []
    assert sizes == [seen]
    assert list(features) == LEVELS
    for x, count, stride in zip(features.values(), channels, (4, 8, 16, 32), strict=True):
        assert x.shape == (2, count, 64 // stride, 96 // stride)


def test_timm_features_are_those_of_timm_and_later_stages_are_left_out():
    import timm

    torch.manual_seed(0)
    model = TimmBackbone("resnet18", out_features=("res2", "res4"), in_channels=4).eval()
    assert list(model.output_shape()) == ["res2", "res4"]
    names = model.state_dict().keys()
    assert not [name for name in names if name.startswith(("model.layer4", "model.fc"))]
    reference = timm.create_model("resnet18", in_chans=4, features_only=True, out_indices=(1, 3))
    reference.eval().load_state_dict(
        {name.removeprefix("model."): x for name, x in model.state_dict().items()}
    )
    x = torch.randn(1, 4, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(model(x).values(), reference(x), strict=True):
            assert torch.equal(ours, theirs)


def test_plain_vit_pyramid_stands_on_its_last_normalised_map():
    model = TimmBackbone("vit_tiny_patch16_224").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model(x)
        tokens = model.model.norm(model.model.forward_intermediates(x, norm=False)[0])
    last = features["res4"]
    torch.testing.assert_close(last.flatten(2).mT, tokens[:, 1:])
    assert torch.equal(features["res5"], nn.functional.max_pool2d(last, 2))


@pytest.mark.parametrize("stride, expected", [(2, 3), (8, 12), (16, 12), (32, 12)])
def test_change_of_stride(stride, expected):
    layers, channels = change_stride(12, 8, stride)
    assert channels == expected
    assert layers(torch.randn(1, 12, 8, 16)).shape == (1, channels, 64 // stride, 128 // stride)
    sides = -(-56 // stride), -(-120 // stride)  # rounded up
    assert layers(torch.randn(1, 12, 7, 15)).shape[2:] == sides


def test_weight_file_of_timm_loads_from_model_weights(tmp_path):
    import timm
    from safetensors.torch import save_file

    from rankseg_d2.engine.checkpointer import Checkpointer

    source = timm.create_model("resnet18")
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    model = nn.ModuleDict({"backbone": TimmBackbone("resnet18")})
    Checkpointer(model).load(f"{tmp_path}/resnet18.safetensors?matching_heuristics=True")
    loaded, weights = model.backbone.model.state_dict(), source.state_dict()
    assert weights.keys() - loaded.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(x, weights[name]) for name, x in loaded.items())


def test_missing_pretrained_weights_are_said_with_the_way_out(monkeypatch):
    import timm

    def offline(name, **kwargs):
        raise FileNotFoundError("the hub cannot be reached")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileNotFoundError,
        match="TIMM.PRETRAINED: .* resnet18 .*hub cannot be reached.*MODEL.WEIGHTS to a local",
    ):
        TimmBackbone("resnet18", pretrained=True)


@pytest.mark.parametrize("name, near", [("resnet81", "resnet18"), ("resnet18.a1", "resnet18.a1_")])
def test_unknown_timm_name_gets_near_names(name, near):
    with pytest.raises(KeyError, match=f"MODEL.TIMM.NAME: '{name}' is not known; .* {near}"):
        TimmBackbone(name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "vgg11", "drop_path_rate": 0.1}, "DROP_PATH_RATE must be 0 for vgg11"),
        ({"name": "resnet18", "out_features": ["p2"]}, "TIMM.OUT_FEATURES must be some of res2"),
        ({"name": "levit_128s"}, "levit_128s does not take images of any size"),
    ],
)
def test_what_a_timm_model_cannot_do_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**options)


def test_timm_backbone_names_a_size_that_it_cannot_take():
    model = TimmBackbone("resnet18", out_features=("res2",))
    with pytest.raises(ValueError, match="multiples of 32, got 50x64; .*SIZE_DIVISIBILITY"):
        model(torch.zeros(1, 3, 50, 64))


SMALL = ["MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 4]
DEEPLAB = {
    "R50c_multi_grid": [
        "MODEL.RESNETS.STEM_OUT_CHANNELS", 128, "MODEL.RESNETS.NORM", "BN",
        "MODEL.RESNETS.STRIDE_IN_1X1", False,
    ],
    "basic_dilated": [
        "MODEL.RESNETS.STEM_TYPE", "basic", "MODEL.RESNETS.RES4_DILATION", 2,
        "MODEL.RESNETS.RES5_DILATION", 4, "MODEL.RESNETS.RES5_MULTI_GRID", [1, 1, 1],
    ],
}  # fmt: skip


def deeplab(opts):
    return build_backbone(make_cfg("build_resnet_deeplab_backbone", [*SMALL, *opts]))


@pytest.mark.parametrize("case", DEEPLAB)
def test_deeplab_resnet_gives_the_numbers_of_detectron2(case):
    model = deeplab(DEEPLAB[case]).eval()
    golden.fill(model, "spec")
    expected = golden.load("deeplab_resnet.npz")
    with torch.no_grad():
        features = model(golden.inputs()["image_A"][None] / 128 - 1)
    assert list(features) == LEVELS
    for name, x in features.items():
        assert expected[f"{case}/{name}"].diff(x)[1] < 1e-4, name
        assert model.output_shape()[name].channels == x.shape[1]
        assert -(-150 // model.output_shape()[name].stride) == x.shape[2]


def test_r101c_has_a_stem_of_three_convolutions():
    opts = ["MODEL.RESNETS.DEPTH", 101, "MODEL.RESNETS.STEM_OUT_CHANNELS", 128]
    with torch.device("meta"):
        model = build_resnet_deeplab_backbone(make_cfg("", opts), RGB)
    shapes = [tuple(getattr(model.stem, f"conv{i}").weight.shape) for i in (1, 2, 3)]
    assert shapes == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert len(model.res4) == 23


@pytest.mark.parametrize("contract, first", [(True, (1, 2)), (False, (2, 4))])
def test_the_first_block_of_a_dilated_stage_can_have_half_of_its_dilation(contract, first):
    opts = ["MODEL.RESNETS.RES4_DILATION", 2, "MODEL.RESNETS.RES5_DILATION", 4]
    opts += ["MODEL.RESNETS.RES5_MULTI_GRID", [1, 1, 1]]
    with torch.device("meta"):
        model = deeplab([*opts, "MODEL.RESNETS.CONTRACT_DILATION", contract])
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in model.stages]
    assert dilations == [[1] * 3, [1] * 4, [first[0], *[2] * 5], [first[1], 4, 4]]
    assert [shape.stride for shape in model.output_shape().values()] == [4, 8, 8, 8]


def test_every_parameter_of_deeplab_resnet_gets_a_gradient_but_the_frozen_ones():
    opts = ["MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT"]
    assert train_step(deeplab([*opts, 0]), torch.randn(2, 3, 64, 64))[1] == []
    with torch.device("meta"):
        model = deeplab([*opts, 2])
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert {name.split(".")[0] for name in frozen} == {"stem", "res2"}


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.RESNETS.STEM_TYPE", "deep"], "STEM_TYPE .* basic or deeplab, got deep"),
        (["MODEL.RESNETS.DEPTH", 18], "DEPTH .* 50 or 101 or 152, got 18"),
        (["MODEL.RESNETS.RES4_DILATION", 2], r"RES5_DILATION .* 4 \(RES4_DILATION is 2\), got 1"),
        (["MODEL.RESNETS.RES5_MULTI_GRID", [1, 2]], r"RES5_MULTI_GRID .* 3 blocks .* got \[1, 2\]"),
        (["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [True] * 4], "DEFORM_ON_PER_STAGE .* False"),
    ],
)
def test_deeplab_resnet_says_which_key_is_wrong(opts, message):
    with pytest.raises(ValueError, match=message):
        deeplab(opts)


def test_unknown_backbone_gets_near_names():
    check_backbone(make_cfg("D2SwinTransformer"))
    assert BACKBONE_REGISTRY.get("D2SwinTransformer") is D2SwinTransformer
    with pytest.raises(KeyError, match="MODEL.BACKBONE.NAME: 'SwinTransformer' .* D2SwinTransfo"):
        check_backbone(make_cfg("SwinTransformer"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swin", "resnet", "timm"])
def test_backbone_compiles_without_a_graph_break(kind):
    make = {
        "swin": lambda: tiny_swin(depths=(2, 1), pretrain_size=16),
        "resnet": lambda: deeplab(["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3"]]),
        "timm": lambda: TimmBackbone("resnet18", out_features=("res2", "res3")),
    }
    model = make[kind]().eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        torch._dynamo.reset()
        features = torch.compile(model, fullgraph=True, backend="eager")(x)
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name], rtol=1e-4, atol=1e-4)
