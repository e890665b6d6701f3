import pytest
import torch
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec
from support import pixel_golden
from support.backbones import (
    LEVELS,
    check_a_backbone,
    check_golden,
    images_of,
    public_weights,
)
from support.small import make_config
from torch import nn
from torch.nn import functional as F

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta
from rankseg_d2.modeling.backbone import VOLO
from rankseg_d2.modeling.backbone.volo import OutlookAttention

SMALL = {"image_size": 64, "embed_dims": (8, 16), "depths": (2, 1, 2, 1), "num_heads": (2, 4)}
SMALL |= {"stem_dim": 4, "norm": "BN"}


def make(**options):
    torch.manual_seed(0)
    return VOLO(**SMALL | options)


@pytest.fixture(scope="module")
def golden():
    """VOLO-D1 with the reference's weights, in double precision, and its arrays and facts."""
    model = VOLO(image_size=96, norm="BN").double().eval()
    for name, x in model.state_dict().items():
        if x.is_floating_point():
            x.copy_(pixel_golden.value_of(name, x.shape))
    return model, *pixel_golden.load("volo_d1")


def test_every_stage_and_gradient_is_the_references(golden):
    model, arrays, facts = golden
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.update({name: output})

    stages = model.network
    hooks = [
        model.patch_embed.register_forward_hook(keep("patch_embed")),
        stages[0][0].register_forward_hook(keep("outlooker0")),
        stages[0][-1].register_forward_hook(keep("out/0")),
        stages[1].register_forward_hook(keep("out/1")),
        *(stages[i][-1].register_forward_hook(keep(f"out/{i}")) for i in (2, 3, 4)),
    ]
    model(images_of(facts).double())
    for hook in hooks:
        hook.remove()
    found["patch_embed"] = found["patch_embed"].permute(0, 3, 1, 2)
    outputs = [found[f"out/{i}"].reshape(arrays[f"out/{i}"].shape) for i in range(5)]
    found |= {f"out/{i}": x for i, x in enumerate(outputs)}
    check_golden(found, model, outputs, facts, arrays)


def test_published_weights_are_loaded_as_they_are(tmp_path):
    weights = public_weights("volo_d1_official_224")
    torch.save(weights, tmp_path / "d1_224_84.2.pth.tar")
    model = nn.Module()
    model.backbone = VOLO(image_size=96, norm="BN")
    model.checkpoint_rows = lambda: {
        f"backbone.{name}": rows for name, rows in model.backbone.checkpoint_rows().items()
    }
    Checkpointer(model).load(str(tmp_path / "d1_224_84.2.pth.tar"))
    own = model.backbone.state_dict()
    missing = own.keys() - weights.keys()
    assert missing == {"resample.res2.0.weight", "resample.res2.0.bias"}
    for name in own.keys() - missing - {"pos_embed"}:
        assert own[name].equal(weights[name]), name
    position = F.interpolate(weights["pos_embed"].permute(0, 3, 1, 2), (6, 6), mode="bicubic")
    torch.testing.assert_close(own["pos_embed"], position.permute(0, 2, 3, 1))
    unused = {name.partition(".")[0] for name in weights.keys() - own.keys()}
    assert unused == {"cls_token", "post_network", "aux_head", "head", "norm"}


def test_timms_model_computes_the_same():
    volo = pytest.importorskip("timm.models.volo")
    theirs = volo.VOLO(
        layers=[2, 1, 2, 1], img_size=64, num_classes=3, embed_dims=[48, 96, 96, 96],
        num_heads=[2, 4, 4, 4], mlp_ratio=3, downsamples=[True, False, False, False],
        outlook_attention=[True, False, False, False], post_layers=["ca", "ca"],
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, x in theirs.state_dict().items():
            if x.is_floating_point():
                x.copy_(pixel_golden.value_of(name, x.shape))
    model = make(embed_dims=(48, 96), num_heads=(2, 4), stem_dim=64).eval()
    missing = model.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    assert all(name.startswith("resample") for name in missing)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = theirs.forward_intermediates(image, intermediates_only=True)
        features = model(image)
    for name, expected in (("res3", maps[0]), ("res4", maps[-2]), ("res5", maps[-1])):
        expected = F.max_pool2d(expected, 2) if name == "res5" else expected
        assert expected.shape == features[name].shape, name
        assert (features[name] - expected).abs().max() / expected.std() < 1e-4, name


def test_it_is_a_backbone_for_images_of_any_size():
    check_a_backbone(make)
    assert make().output_shape()["res2"].channels == 4  # half of the outlookers' channels


def test_outlook_attention_sums_what_every_window_says_of_a_token():
    torch.manual_seed(0)
    module = OutlookAttention(8, 2).double()
    x = torch.randn(1, 5, 4, 8, dtype=torch.float64)
    values, mixed = module.v(x)[0], torch.zeros(5, 4, 8, dtype=torch.float64)
    places = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for row in range(0, 5, 2):
        for column in range(0, 4, 2):
            centre = x[0, row : row + 2, column : column + 2].flatten(0, 1).mean(0)
            weights = module.attn(centre).unflatten(0, (2, 9, 9))
            weights = (weights / 2).softmax(-1)  # heads of 4 channels
            for a, (down, right) in enumerate(places):
                i, j = row + down, column + right
                if not (0 <= i < 5 and 0 <= j < 4):
                    continue
                for b, (other_down, other_right) in enumerate(places):
                    k, m = row + other_down, column + other_right
                    if 0 <= k < 5 and 0 <= m < 4:
                        scale = weights[:, a, b].repeat_interleave(4)
                        mixed[i, j] += scale * values[k, m]
    torch.testing.assert_close(module(x)[0], module.proj(mixed))


def test_positions_are_resized_to_the_grid():
    model = make().eval()
    assert model.positions((4, 4)) is model.pos_embed
    expected = F.interpolate(model.pos_embed.permute(0, 3, 1, 2), (2, 6), mode="bicubic")
    torch.testing.assert_close(model.positions((2, 6)), expected.permute(0, 2, 3, 1))


def test_outlookers_are_never_dropped_and_deeper_blocks_more_often():
    model = make(drop_path_rate=0.5)
    rates = [block.drop_path for stage in model.network[2:] for block in stage]
    assert rates == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert not any(hasattr(block, "drop_path") for block in model.network[0])


@pytest.mark.parametrize(("name", "parts"), [("res2", 1), ("res4", 4), ("res5", 5)])
def test_stages_after_the_last_feature_are_not_built(name, parts):
    model = make(out_features=(name,)).eval()
    assert len(model.network) == parts
    assert hasattr(model, "pos_embed") is (parts > 1) is bool(model.checkpoint_rows())
    assert list(model(torch.zeros(1, 3, 32, 32))) == list(model.output_shape()) == [name]


def test_layers_are_numbered_for_the_decay_of_the_rate():
    above = make().layers_above()
    expected = {
        "patch_embed.proj.weight": 5, "network.0.0.attn.v.weight": 5,
        "network.0.1.mlp.fc1.bias": 4, "network.1.proj.bias": 3, "pos_embed": 3,
        "network.2.0.norm1.weight": 3, "network.3.1.attn.qkv.weight": 1,
        "network.4.0.attn.proj.bias": 0, "resample.res2.0.weight": 0,
    }  # fmt: skip
    assert expected.items() <= above.items()
    assert above.keys() == dict(make().named_parameters()).keys()
    assert make().no_weight_decay() <= above.keys()


SIZES = {"d1": 26.6, "d2": 58.7, "d3": 86.3, "d4": 193.0, "d5": 295.5}  # millions, as published


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_the_published_ones(size):
    """The published ones have two layers of class attention and two classifiers of 1000 classes."""
    model = build_on_meta(get_config(f"ade20k/semantic/upernet_volo_{size}"))
    backbone, dim = model.backbone, model.backbone.pos_embed.shape[-1]
    count = sum(x.numel() for x in backbone.parameters())
    count -= sum(x.numel() for x in backbone.resample.parameters())
    count += (14**2 - 32**2) * dim  # positions of images of 224 x 224
    hidden = backbone.network[4][0].mlp.fc1.out_features
    attention = 4 * dim**2 + dim
    mlp = 2 * hidden * dim + hidden + dim
    count += 2 * (attention + mlp + 4 * dim) + dim  # with their norms, and a class token
    count += 2 * dim + 2 * (1000 * dim + 1000)  # the last norm, and the classifiers
    assert count / 1e6 == pytest.approx(SIZES[size], abs=0.05)


def test_the_crops_of_cityscapes_and_its_few_categories_are_in_the_config():
    cfg = get_config("cityscapes/semantic/upernet_volo_d1_rankseg")
    assert cfg.MODEL.VOLO.IMAGE_SIZE == cfg.INPUT.CROP.SIZE[0] == 1024
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.RANKSEG.TOPK) == (8, 15)


def test_it_is_built_from_a_config():
    cfg = make_config(
        {
            "MODEL.VOLO.IMAGE_SIZE": 80,
            "MODEL.VOLO.EMBED_DIMS": [8, 16],
            "MODEL.VOLO.NUM_HEADS": [1, 2],
            "MODEL.VOLO.DEPTHS": [1, 1, 1, 1],
            "MODEL.VOLO.STEM_DIM": 6,
            "MODEL.VOLO.MLP_RATIO": 2.0,
            "MODEL.VOLO.NORM": "LN",
            "MODEL.VOLO.OUT_FEATURES": ["res3", "res5"],
        }
    )
    model = BACKBONE_REGISTRY.get("VOLO")(cfg, ShapeSpec(channels=4))
    assert model.patch_embed.conv[0].weight.shape == (6, 4, 7, 7)
    assert type(model.patch_embed.conv[1]) is type(get_norm("LN", 6))
    assert model.network[0][0].mlp.fc1.out_features == 16
    assert model.pos_embed.shape == (1, 5, 5, 16)
    shapes = {name: (x.channels, x.stride) for name, x in model.output_shape().items()}
    assert shapes == {"res3": (8, 8), "res5": (16, 32)}
    assert set(LEVELS) > set(shapes)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 15}, "IMAGE_SIZE must be 16 or more; got 15"),
        ({"depths": (1, 1, 1)}, r"VOLO\.DEPTHS must have 4 numbers.*got \[1, 1, 1\]"),
        ({"embed_dims": (8,)}, r"VOLO\.EMBED_DIMS must have 2 numbers.*got \[8\]"),
        ({"num_heads": (2, 3)}, "NUM_HEADS: 3 heads cannot share 16 channels; .*EMBED_DIMS"),
        ({"out_features": ()}, r"OUT_FEATURES must be some of res2, .*got \[\]"),
        ({"out_features": ("res6",)}, r"OUT_FEATURES must be some of .*got \['res6'\]"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
