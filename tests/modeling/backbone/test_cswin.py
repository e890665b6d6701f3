import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec
from support import pixel_golden
from support.backbones import check_a_backbone, check_golden, images_of, public_weights
from support.small import make_config
from torch import nn
from torch.nn import functional as F

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta
from rankseg_d2.modeling.backbone import CSWinTransformer
from rankseg_d2.modeling.backbone.cswin import StripeAttention

SMALL = {"embed_dim": 8, "depths": (1, 2, 2, 1), "num_heads": (2, 2, 4, 1)}
SMALL |= {"stripe_widths": (1, 2, 3)}


def make(**options):
    torch.manual_seed(0)
    return CSWinTransformer(**SMALL | options)


def test_every_stage_and_gradient_is_the_references():
    model = CSWinTransformer().double().eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            x.copy_(pixel_golden.value_of(name, x.shape))
    arrays, facts = pixel_golden.load("cswin_t")
    assert sum(x.numel() for x in model.parameters()) == facts["params"]
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.update({name: output.flatten(1, 2)})

    for name, module in (
        ("stage1_block", model.stage1[-1]),
        ("merge1/0", model.merge1),
        ("stage2_block0", model.stage2[0]),
    ):
        module.register_forward_hook(keep(name))
    outputs = list(model(images_of(facts).double()).values())
    found |= {f"out/{i}": x for i, x in enumerate(outputs)}
    check_golden(found, model, outputs, facts, arrays)


def test_published_weights_are_loaded_as_they_are(tmp_path):
    """Those of ImageNet have no norm after each stage, but a last one and a classifier."""
    weights = public_weights("cswin_t_backbone")
    norms = {name for name in weights if name.startswith("norm")}
    theirs = {name: x for name, x in weights.items() if name not in norms}
    theirs |= {"norm.weight": torch.ones(512), "head.weight": torch.ones(1000, 512)}
    torch.save({"state_dict_ema": theirs, "epoch": 300}, tmp_path / "cswin_tiny_224.pth")
    model = nn.ModuleDict({"backbone": CSWinTransformer()})
    own = model.backbone.state_dict()
    assert {name: x.shape for name, x in own.items()} == {
        name: x.shape for name, x in weights.items()
    }
    Checkpointer(model).load(str(tmp_path / "cswin_tiny_224.pth"))
    for name, x in model.backbone.state_dict().items():
        assert x.equal(own[name] if name in norms else weights[name]), name


def test_it_is_a_backbone_for_images_of_any_size():
    check_a_backbone(make)


@pytest.mark.parametrize("stripe", [(5, 2), (3, 7), (5, 7)], ids=["down", "across", "all"])
def test_attention_stays_in_a_stripe_and_padding_is_read(stripe):
    torch.manual_seed(0)
    module = StripeAttention(8, 2).double()
    qkv = torch.randn(2, 5, 7, 3, 8, dtype=torch.float64)
    rows, columns = -(-5 // stripe[0]), -(-7 // stripe[1])
    padded = torch.zeros(2, rows * stripe[0], columns * stripe[1], 3, 8, dtype=torch.float64)
    top, left = (padded.shape[1] - 5) // 2, (padded.shape[2] - 7) // 2
    padded[:, top : top + 5, left : left + 7] = qkv
    expected = torch.zeros_like(padded[..., 0, :])
    for row in range(rows):
        for column in range(columns):
            here = (
                slice(None),
                slice(row * stripe[0], (row + 1) * stripe[0]),
                slice(column * stripe[1], (column + 1) * stripe[1]),
            )
            q, k, v = padded[here].flatten(1, 2).unbind(2)  # (B, N, D)
            read = [
                (q[..., i : i + 4] @ k[..., i : i + 4].mT / 2).softmax(-1) @ v[..., i : i + 4]
                for i in (0, 4)
            ]
            local = F.conv2d(
                v.mT.unflatten(2, stripe), module.get_v.weight, module.get_v.bias, 1, 1, 1, 8
            )
            mixed = torch.cat(read, -1).unflatten(1, stripe) + local.permute(0, 2, 3, 1)
            expected[here] = mixed
    expected = expected[:, top : top + 5, left : left + 7]
    torch.testing.assert_close(module(qkv, stripe), expected)


def test_a_block_mixes_tokens_of_its_row_and_column_and_the_last_stage_all():
    model = make().eval()
    for block, seen in ((model.stage1[0], 2 * 6 - 1), (model.stage4[0], 6 * 6)):
        x = torch.randn(1, 6, 6, block.norm1.normalized_shape[0], requires_grad=True)
        block(x)[0, 2, 3].sum().backward()
        assert (x.grad[0].abs().sum(-1) > 0).sum() == seen


def test_deeper_blocks_are_dropped_more_often():
    model = make(drop_path_rate=0.5)
    stages = [model.stage1, model.stage2, model.stage3, model.stage4]
    rates = [block.drop_path_rate for stage in stages for block in stage]
    assert rates == pytest.approx([0.1 * i for i in range(6)])


def test_stages_after_the_last_feature_are_not_built():
    model = make(out_features=("res3",)).eval()
    assert not hasattr(model, "stage3") and not hasattr(model, "norm1")
    assert list(model(torch.zeros(1, 3, 32, 32))) == list(model.output_shape()) == ["res3"]


def test_layers_are_numbered_for_the_decay_of_the_rate():
    above = make().layers_above()
    expected = {
        "stage1_conv_embed.0.weight": 5, "stage1.0.qkv.bias": 5, "norm1.weight": 5,
        "merge1.conv.weight": 4, "stage2.1.proj.weight": 3, "norm2.bias": 3,
        "merge2.norm.weight": 2, "stage3.1.attns.1.get_v.bias": 1, "merge3.conv.bias": 0,
        "stage4.0.mlp.fc2.weight": 0, "norm4.weight": 0,
    }  # fmt: skip
    assert expected.items() <= above.items()
    assert above.keys() == dict(make().named_parameters()).keys()


SIZES = {"t": (21.81, 0.3), "s": (34.13, 0.4), "b": (76.61, 0.6)}  # millions, drop path rate


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_reference(size):
    params, rate = SIZES[size]
    model = build_on_meta(get_config(f"ade20k/semantic/upernet_cswin_{size}"))
    assert model.backbone.stage4[-1].drop_path_rate == pytest.approx(rate)
    count = sum(x.numel() for x in model.backbone.parameters())
    assert count / 1e6 == pytest.approx(params, abs=0.006)


def test_it_is_built_from_a_config():
    cfg = make_config(
        {
            "MODEL.CSWIN.EMBED_DIM": 12,
            "MODEL.CSWIN.DEPTHS": [1, 1, 1, 1],
            "MODEL.CSWIN.NUM_HEADS": [2, 4, 6, 3],
            "MODEL.CSWIN.STRIPE_WIDTHS": [2, 3, 4],
            "MODEL.CSWIN.MLP_RATIO": 2.0,
            "MODEL.CSWIN.OUT_FEATURES": ["res2", "res5"],
        }
    )
    model = BACKBONE_REGISTRY.get("CSWinTransformer")(cfg, ShapeSpec(channels=4))
    assert model.stage1_conv_embed[0].in_channels == 4
    assert [model.stage1[0].stripe_width, model.stage4[0].stripe_width] == [2, None]
    assert model.stage4[0].mlp.fc1.out_features == 2 * 96
    shapes = {name: (x.channels, x.stride) for name, x in model.output_shape().items()}
    assert shapes == {"res2": (12, 4), "res5": (96, 32)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depths": (1, 1, 1)}, r"CSWIN\.DEPTHS must have 4 numbers, one .*got \[1, 1, 1\]"),
        ({"stripe_widths": (1, 2, 7, 7)}, r"STRIPE_WIDTHS must have 3 numbers, of the first thr"),
        ({"num_heads": (1, 2, 4, 8)}, "1 heads cannot share the 8 channels of res2; choose an e"),
        ({"num_heads": (2, 2, 4, 6)}, "6 heads cannot share the 64 channels of res5; choose a div"),
        ({"out_features": ()}, r"OUT_FEATURES must be some of res2, .*got \[\]"),
        ({"out_features": ("res6",)}, r"OUT_FEATURES must be some of .*got \['res6'\]"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
