"""ViT-Adapter computes what its authors' code computes, on BEiT and on a plain ViT."""

import logging

import pytest
import torch
from detectron2.modeling import build_model
from support import pixel_golden
from support.small import (
    KINDS,
    RANKSEG,
    image_sample,
    make_config,
    picture,
    train,
    without_gradient,
)
from torch import nn
from torch.nn import functional as F

from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.optimizer import parameter_groups
from rankseg_d2.modeling.backbone import BEiTAdapter, ViTAdapter
from rankseg_d2.modeling.backbone.adapter_parts import ConvFFN, as_maps, as_tokens
from rankseg_d2.modeling.deformable_attention import MSDeformAttn, cell_centers

ADAPTER = {"conv_channels": 4, "deform_heads": 2, "num_points": 2, "value_ratio": 0.5}
ADAPTER |= {"ffn_ratio": 0.25, "norm": "BN"}
SHARED = {"embed_dim": 16, "depth": 4, "num_heads": 2, "drop_path_rate": 0.0}
CONFIG = {
    "MODEL.BEIT.EMBED_DIM": 16,
    "MODEL.BEIT.DEPTH": 4,
    "MODEL.BEIT.NUM_HEADS": 2,
    "MODEL.BEIT.IMG_SIZE": [64, 96],
    "MODEL.BEIT.DROP_PATH_RATE": 0.0,
    "MODEL.VIT.EMBED_DIM": 16,
    "MODEL.VIT.DEPTH": 4,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.IMAGE_SIZE": 64,
    "MODEL.VIT.LAYER_SCALE": 1.0,
    "MODEL.VIT.DROP_PATH_RATE": 0.0,
    "MODEL.VIT_ADAPTER.CONV_CHANNELS": 4,
    "MODEL.VIT_ADAPTER.HEADS": 2,
    "MODEL.VIT_ADAPTER.VALUE_RATIO": 0.5,
    "MODEL.VIT_ADAPTER.NORM": "BN",
}
NAMES = ("BEiTAdapter", "ViTAdapter")
UPERNET = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
}


@torch.no_grad()
def shake(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        # So that most points are in the small maps.
        nn.init.normal_(parameter, std=0.1 if "sampling_offsets" in name else 0.3)
    return model


def tiny(kind, **options):
    if kind is BEiTAdapter:
        options = {"img_size": (64, 96)} | options
    else:
        options = {"image_size": 64, "layer_scale": 1.0} | options
    adapter = ADAPTER | options.pop("adapter", {})
    return shake(kind(adapter=adapter, **SHARED | options).double().eval())


KIND = pytest.mark.parametrize("kind", [BEiTAdapter, ViTAdapter])


def test_levels_and_gradients_are_the_references():
    arrays, facts = pixel_golden.load("vitadapter_beit")
    config = facts["config"]
    model = BEiTAdapter(
        **{name: config[name] for name in ("img_size", "embed_dim", "depth", "num_heads")},
        drop_path_rate=0.0,
        adapter={
            "conv_channels": config["conv_inplane"],
            "deform_heads": config["deform_num_heads"],
            "num_points": config["n_points"],
            "value_ratio": config["deform_ratio"],
            "ffn_ratio": config["cffn_ratio"],
            "norm": "BN",
        },
    )
    assert sum(x.numel() for x in model.parameters()) == facts["parameters"]
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(pixel_golden.value_of(name, value.shape))
    model.double().eval()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in facts["mean_std"])
    images = [(pixel_golden.image(i, *facts["hw"]) - mean) / std for i in facts["image_seeds"]]
    images = torch.stack(images).double()
    features = list(model(images).values())
    priors = model.spm(images)
    found = {f"out/{i}": x for i, x in enumerate(features)}
    for name, x in (found | {"spm/0": priors[0], "spm/3": priors[3].flatten(2).mT}).items():
        assert arrays[name].diff(x)[1] < 1e-4, name

    noise = torch.Generator().manual_seed(5)
    value = sum(
        (x * torch.randn(x.shape, generator=noise)).sum() / x.numel() ** 0.5 for x in features
    )
    assert value.item() == pytest.approx(arrays["proj/value"].values[0], rel=1e-4)
    value.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(gradients) == set(facts["grad_names"])
    norms = [gradients[name].norm().item() for name in facts["grad_names"]]
    assert norms == pytest.approx(arrays["grad_norm"].values, rel=1e-4)
    sampled = [name for name in arrays if name.startswith("grad/")]
    assert len(sampled) == 16
    for name in sampled:
        assert arrays[name].diff(gradients[name.removeprefix("grad/")])[1] < 1e-4, name


@KIND
@pytest.mark.parametrize("size", [(64, 96), (32, 64), (32, 32)])
def test_levels_have_their_strides_and_a_batch_is_its_images(kind, size):
    model = tiny(kind)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        together, alone = model(images), model(images[1:])
    assert [tuple(x.shape) for x in together.values()] == [
        (2, 16, size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)
    ]
    for name, shape in model.output_shape().items():
        assert (shape.channels, shape.stride) == (16, size[0] // together[name].shape[2])
        torch.testing.assert_close(together[name][1:], alone[name])
    assert model.size_divisibility == 32


@KIND
def test_gradient_checkpointing_changes_nothing_and_each_parameter_learns(kind):
    models = [tiny(kind).train(), tiny(kind, use_checkpoint=True).train()]
    images = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    for model in models:
        sum(x.pow(3).sum() for x in model(images).values()).backward()
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert a.grad is not None and a.grad.any(), name
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@KIND
def test_an_adapter_begins_as_one_that_tells_the_vit_nothing(kind):
    torch.manual_seed(0)
    options = {"layer_scale": 1e-6} if kind is BEiTAdapter else {"layer_scale": 1.0}
    model = kind(adapter=ADAPTER, **SHARED | options)
    gammas = [x.injector.gamma for x in model.interactions]
    first = 1e-6 if kind is BEiTAdapter else 0.0
    assert all((gamma == first).all() for gamma in gammas)
    extractors = [len(x.extractors()) for x in model.interactions]
    assert extractors == [1, 1, 1, 3]
    attention = model.interactions[0].injector.attn
    assert not attention.attention_weights.weight.any() and attention.value_proj.weight.any()
    assert attention.value_proj.out_features == 8 == attention.output_proj.in_features


def test_the_vit_without_injection_is_the_plain_one():
    from rankseg_d2.modeling.backbone import VisionTransformer

    model = tiny(ViTAdapter)
    for interaction in model.interactions:
        nn.init.zeros_(interaction.injector.gamma)
    seen = []
    model._features = lambda maps, steps: seen.extend(steps)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        model(images)
        x = model.patch_embed(images).flatten(1, 2) + model.pos_embed[:, 1:]
        for step, block in zip(seen, model.blocks, strict=True):
            x = VisionTransformer.run_block(model, block, x)
            torch.testing.assert_close(step.flatten(2).mT, x)


def test_deformable_attention_reads_narrow_values_of_another_grid():
    """As many queries as one grid has cells, values of two others, by grid_sample."""
    torch.manual_seed(0)
    layer = MSDeformAttn(12, 2, 2, 3, value_dim=4).double()
    shake(layer)
    sizes, centers = ((3, 4), (2, 2)), cell_centers(2, 5, torch.device("cpu")).double()
    queries, tokens = torch.randn(2, 10, 12).double(), torch.randn(2, 16, 12).double()
    offsets = layer.sampling_offsets(queries).view(2, 10, 2, 2, 3, 2)
    weights = layer.attention_weights(queries).view(2, 10, 2, 6).softmax(-1).view(2, 10, 2, 2, 3)
    values = as_maps(layer.value_proj(tokens), sizes)
    expected = []
    for head in range(2):
        total = 0
        for level, x in enumerate(values):
            scale = torch.tensor(sizes[level][::-1])
            places = centers[:, None] + offsets[:, :, head, level] / scale  # (B, Q, P, 2)
            read = F.grid_sample(x[:, 2 * head : 2 * head + 2], 2 * places - 1, align_corners=False)
            total = total + (read * weights[:, None, :, head, level]).sum(-1)  # (B, d, Q)
        expected.append(total.mT)
    found = layer(queries, tokens, centers, sizes)
    torch.testing.assert_close(found, layer.output_proj(torch.cat(expected, -1)))


def test_the_feed_forward_keeps_levels_apart():
    layer, sizes = ConvFFN(4, 6).double(), ((4, 6), (2, 3), (1, 2))
    x = torch.randn(2, 32, 4, dtype=torch.float64)
    torch.testing.assert_close(as_tokens(as_maps(x, sizes)), x)
    other = x.clone()
    other[:, 24:30] += 1  # the second level
    changed = (layer(x, sizes) - layer(other, sizes)).abs().amax((0, 2)) > 1e-12
    assert not changed[:24].any() and changed[24:30].all() and not changed[30:].any()


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_counted_and_what_is_new_learns_as_fast_as_the_head(name):
    config = CONFIG | KINDS["mask2former"] | {"MODEL.BACKBONE.NAME": name}
    model = build_model(make_config(config))
    above = model.backbone.layers_above()
    assert above.keys() == dict(model.backbone.named_parameters()).keys()
    new = ("spm", "interactions", "up", "norm", "level_embed")
    assert all(above[key] == 0 for key in above if key.startswith(new))
    is_beit = name == "BEiTAdapter"
    assert above["patch_embed.proj.weight"] == (5 if is_beit else 3)
    assert above["blocks.0.norm1.weight"] - above["blocks.3.norm1.weight"] == 3
    keys = {"SOLVER.BACKBONE_MULTIPLIER": 1.0, "SOLVER.LAYER_DECAY": 0.5, "SOLVER.BASE_LR": 1.0}
    groups = parameter_groups(make_config(config, keys), model)
    found = {id(x): group for group in groups for x in group["params"]}
    own = dict(model.backbone.named_parameters())
    assert found[id(own["interactions.0.injector.gamma"])]["weight_decay"] == 0
    assert found[id(own["spm.fc1.weight"])]["lr"] == 1
    assert (found[id(own["level_embed"])]["weight_decay"] == 0) is not is_beit


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [{}, RANKSEG], ids=["plain", "rankseg"])
def test_mask2former_trains_and_predicts(name, more):
    config = CONFIG | KINDS["mask2former"] | {"MODEL.BACKBONE.NAME": name}
    model = shake(build_model(make_config(config, more)))
    losses = train(model, [image_sample(size=(60, 90)), image_sample(1)])
    assert all(loss.isfinite() for loss in losses.values()) and "loss_cate" not in losses
    assert not [name for name in without_gradient(model) if name.startswith("backbone")]
    with torch.no_grad():
        (result,) = model.eval()([{"image": picture(0, (50, 75))}])
    labels = result["sem_seg"].argmax(0) if not more else result["sem_seg_labels"]
    assert labels.shape == (50, 75)


def test_upernet_pads_to_what_the_adapter_needs():
    model = build_model(make_config(CONFIG, UPERNET, {"MODEL.BACKBONE.NAME": "ViTAdapter"}))
    with torch.no_grad():
        (result,) = model.eval()([{"image": picture(0, (33, 75))}])
    assert result["sem_seg_labels"].shape == (33, 75)


def test_weights_of_timms_vit_and_beit_are_found(tmp_path, caplog):
    timm = pytest.importorskip("timm")
    shape = {"embed_dim": 16, "depth": 4, "num_heads": 2, "num_classes": 5}
    vit = timm.models.vision_transformer.VisionTransformer(img_size=32, **shape)
    beit = timm.models.beit.Beit(
        img_size=32, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1, **shape
    )
    for name, theirs in zip(NAMES, (beit, vit), strict=True):
        torch.save(theirs.state_dict(), tmp_path / f"{name}.pth")
        model = build_model(make_config(CONFIG, UPERNET, {"MODEL.BACKBONE.NAME": name}))
        with caplog.at_level(logging.INFO):
            Checkpointer(model, str(tmp_path)).load(str(tmp_path / f"{name}.pth"))
        own, given = model.backbone.state_dict(), theirs.state_dict()
        for part in ("patch_embed.proj.weight", "blocks.3.attn.qkv.weight", "blocks.0.norm2.bias"):
            assert own[part].equal(given[part]), part
    assert "resized from 5 to 17 positions" in caplog.text  # of the ViT
    assert "resized from 12 to 80 offsets" in caplog.text  # of BEiT


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (BEiTAdapter, {"depth": 6}, "divides the ViT's blocks among 4 levels, but there are 6"),
        (ViTAdapter, {"adapter": {"deform_heads": 3}}, r"3 heads cannot share 16 x 0\.5 = 8 chan"),
        (ViTAdapter, {"patch_size": 8}, r"MODEL\.VIT\.PATCH_SIZE must be 16 .*; got 8"),
        (BEiTAdapter, {"patch_size": 8}, r"MODEL\.BEIT\.PATCH_SIZE must be 16"),
    ],
)
def test_bad_options_are_errors(kind, options, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind, **options)


@KIND
def test_other_sides_are_an_error_that_names_the_key(kind):
    with pytest.raises(ValueError, match="multiples of 32, got 64x48; set .*SIZE_DIVISIBILITY"):
        tiny(kind)(torch.zeros(1, 3, 64, 48, dtype=torch.float64))


def test_tokens_beside_the_patches_are_an_error():
    for key, value in (("REGISTERS", 4), ("CLASS_EMBEDDING", True)):
        keys = {"MODEL.BACKBONE.NAME": "ViTAdapter", f"MODEL.VIT.{key}": value}
        with pytest.raises(ValueError, match=r"set MODEL\.VIT\.REGISTERS 0"):
            build_model(make_config(CONFIG, UPERNET, keys))


@KIND
def test_under_autocast_the_attention_between_both_stays_precise(kind):
    model = tiny(kind).float()
    images = torch.randn(1, 3, 32, 64)
    seen = []
    attention = model.interactions[0].injector.attn
    attention.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images)
    assert seen == [torch.float32] * 2
    for name, x in found.items():
        assert (x.float() - expected[name]).abs().mean() < 0.1 * expected[name].std(), name


@KIND
def test_an_image_without_a_batch_is_an_error(kind):
    with pytest.raises(ValueError, match=r"takes images \(B, C, H, W\), not \(3, 32, 32\)"):
        tiny(kind)(torch.zeros(3, 32, 32, dtype=torch.float64))
