import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec
from support.small import make_config
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources.segformer import MMSEGMENTATION_BACKBONE, OFFICIAL_BACKBONE
from rankseg_d2.modeling.backbone import MixTransformer
from rankseg_d2.modeling.backbone.mit import EfficientAttention

LEVELS = ["res2", "res3", "res4", "res5"]
SMALL = {"embed_dims": (8, 8, 16, 16), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}


def make(**options):
    torch.manual_seed(0)
    return MixTransformer(**SMALL | options)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 47), (64, 96)])
def test_any_size_is_taken_and_rounded_up(size):
    model = make().eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, *size))
    assert list(features) == list(model.output_shape()) == LEVELS
    for name, x in features.items():
        spec = model.output_shape()[name]
        assert x.shape[1:] == (spec.channels, *(-(-side // spec.stride) for side in size)), name
        assert x.isfinite().all()
    assert model.size_divisibility == 0  # so images are padded by nothing


def test_features_are_normalised_and_lead_to_the_next_stage():
    model = make().eval()
    features = model(torch.randn(1, 3, 64, 64))
    again = model.stages[1](features["res2"]).permute(0, 3, 1, 2)
    torch.testing.assert_close(again, features["res3"])
    for x in features.values():
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x.mean(1)), atol=1e-5, rtol=0)


def test_attention_is_that_of_all_pixels_to_the_reduced_map():
    torch.manual_seed(0)
    module = EfficientAttention(8, 2, 2, 1e-6).double()
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    q, k, v = module.qkv.weight.chunk(3)
    q_bias, k_bias, v_bias = module.qkv.bias.chunk(3)
    small = F.conv2d(x.permute(0, 3, 1, 2), module.reduce.weight, module.reduce.bias, stride=2)
    assert small.shape[-2:] == (3, 2)  # the last column of five is not read
    small = F.layer_norm(small.flatten(2).mT, (8,), module.norm.weight, module.norm.bias, 1e-6)
    read = []
    for head in (slice(0, 4), slice(4, 8)):
        queries = x.flatten(1, 2) @ q[head].T + q_bias[head]
        keys, values = small @ k[head].T + k_bias[head], small @ v[head].T + v_bias[head]
        read.append((queries @ keys.mT / 2).softmax(-1) @ values)
    expected = module.proj(torch.cat(read, -1)).unflatten(1, (6, 5))
    torch.testing.assert_close(module(x), expected)


def test_a_map_smaller_than_the_reduction_is_one_key():
    module = EfficientAttention(8, 2, 8, 1e-6)
    assert module.reduced(torch.randn(1, 3, 20, 8)).shape == (1, 1, 2, 8)


def test_checkpointed_gradients_are_equal_and_every_parameter_gets_one():
    images, gradients = torch.randn(2, 3, 64, 64), []
    for use_checkpoint in (False, True):
        model = make(use_checkpoint=use_checkpoint, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        sum((x * x.detach().cos()).sum() for x in model(images).values()).backward()
        gradients.append({name: x.grad for name, x in model.named_parameters()})
    plain, checkpointed = gradients
    assert all(x is not None for x in plain.values())
    for name, x in plain.items():
        torch.testing.assert_close(checkpointed[name], x, msg=name)


def test_deeper_blocks_are_dropped_more_often():
    model = make(depths=(2, 3, 4, 2), drop_path_rate=0.5)
    rates = [block.drop_path_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.05 * i for i in range(11)])


def test_stages_after_the_last_feature_are_not_built():
    model = make(out_features=("res3",)).eval()
    assert len(model.stages) == 2
    assert list(model(torch.zeros(1, 3, 32, 32))) == list(model.output_shape()) == ["res3"]


def test_it_is_built_from_a_config():
    cfg = make_config(
        {
            "MODEL.MIT.EMBED_DIMS": [8, 16, 24, 32],
            "MODEL.MIT.NUM_HEADS": [1, 1, 2, 2],
            "MODEL.MIT.NORM_EPS": 1e-5,
            "MODEL.MIT.MLP_RATIO": 2.0,
            "MODEL.MIT.OUT_FEATURES": ["res2", "res5"],
        }
    )
    model = BACKBONE_REGISTRY.get("MixTransformer")(cfg, ShapeSpec(channels=4))
    assert model.stages[0].patch_embed.proj.in_channels == 4
    assert model.stages[3].blocks[1].mlp.fc1.out_features == 64
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    assert {name: x.channels for name, x in model.output_shape().items()} == {"res2": 8, "res5": 32}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depths": (1, 1, 1)}, r"MIT\.DEPTHS must have four numbers.*got \[1, 1, 1\]"),
        ({"num_heads": (1, 3, 2, 2)}, r"NUM_HEADS: 3 heads cannot share the 8 channels of res3"),
        ({"out_features": ()}, r"OUT_FEATURES must be some of res2, .*got \[\]"),
        ({"out_features": ("res6",)}, r"OUT_FEATURES must be some of .*got \['res6'\]"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_images_without_a_batch_are_an_error():
    with pytest.raises(ValueError, match=r"takes images \(B, C, H, W\), not \(3, 32, 32\)"):
        make()(torch.zeros(3, 32, 32))


@pytest.mark.parametrize("table", [OFFICIAL_BACKBONE, MMSEGMENTATION_BACKBONE])
def test_published_weights_load_into_the_bare_backbone(table):
    source, model = (MixTransformer(embed_dims=(8, 16, 40, 64)) for _ in range(2))
    weights = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    theirs = table.to_theirs(weights)
    assert not theirs.keys() & source.state_dict().keys()
    model.load_state_dict(theirs)
    holder = torch.nn.ModuleDict({"backbone": MixTransformer(embed_dims=(8, 16, 40, 64))})
    holder.load_state_dict({f"backbone.{name}": value for name, value in theirs.items()})
    for one in (model, holder["backbone"]):
        assert all(torch.equal(x, weights[f"backbone.{n}"]) for n, x in one.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({k: v for k, v in theirs.items() if "norm1" not in k})
