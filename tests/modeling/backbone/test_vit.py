import logging

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch.nn import functional as F

from rankseg_d2.checkpoints import rename
from rankseg_d2.config import add_rankseg_config
from rankseg_d2.modeling.backbone import VisionTransformer
from rankseg_d2.position_encoding import resize_positions
from rankseg_d2.transformer_block import Block


def tiny(**options):
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 3, "num_heads": 2, "image_size": 64}
    model = VisionTransformer(**sizes | options)
    for name, parameter in model.named_parameters():  # no zeros, which would hide mistakes
        torch.nn.init.normal_(parameter, float(name.endswith("norm.weight")), 0.2)
    return model.eval()


def image(height=64, width=64, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_weights_of_timm_give_timms_features():
    theirs = timm.models.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=16, depth=3, num_heads=2, num_classes=5
    ).eval()
    weights = {name: torch.randn_like(x) * 0.2 for name, x in theirs.state_dict().items()}
    theirs.load_state_dict(weights)
    own = tiny()
    names = {f"backbone.{name}" for name in own.state_dict()}
    rename(weights, names)
    missing = names - weights.keys()
    assert not missing and weights.keys() - names == {"head.weight", "head.bias"}
    own.load_state_dict({name.removeprefix("backbone."): weights[name] for name in names})
    tokens = theirs.forward_features(image())
    assert own(image())["last"].allclose(tokens[:, 1:].mT.unflatten(2, (4, 4)), atol=1e-5)


def test_a_config_builds_it():
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "VisionTransformer", "MODEL.VIT.DEPTH", 2])
    cfg.merge_from_list(["MODEL.VIT.CLASS_EMBEDDING", True, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 9])
    with torch.device("meta"):
        model = build_backbone(cfg)
    assert model.size_divisibility == 16
    shapes = model.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "last": (768, 16),
        "classes": (768, 16),
    }
    assert model.pos_embed.shape == (1, 1 + 32 * 32, 768)
    assert model.class_embedding.shape == (1, 9, 768)


# Positions


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_positions_are_resized_to_other_grids_and_the_log_says_so_once(mode, caplog):
    model = tiny(interpolation=mode)
    assert model.positions((4, 4)) is model.pos_embed
    with caplog.at_level(logging.INFO, "rankseg_d2"):
        found = [model.positions((3, 5)) for _ in range(2)][0]
    grid = model.pos_embed[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (3, 5), mode=mode).permute(0, 2, 3, 1).reshape(1, 15, 16)
    assert found.equal(torch.cat([model.pos_embed[:, :1], grid], dim=1))
    assert [record.message for record in caplog.records] == [
        "the position embedding of 4 x 4 patches is resized to 3 x 5"
    ]


def test_a_grid_of_as_many_patches_but_another_shape_is_resized_too():
    model = tiny()
    assert not model.positions((2, 8)).equal(model.pos_embed)


def test_positions_that_are_no_square_are_refused():
    with pytest.raises(ValueError, match="10 positions are no square grid beside a class token"):
        resize_positions(torch.zeros(1, 11, 4), (4, 4))


# Images and features


def test_sides_that_are_no_multiple_of_the_patch_are_padded_with_zeros():
    model = tiny()
    features = model(image(50, 70))["last"]
    assert features.shape == (2, 16, 4, 5)
    padded = F.pad(image(50, 70), (0, 10, 0, 14))
    assert features.equal(model(padded)["last"])


def test_only_blocks_that_the_features_need_exist():
    model = tiny(out_features=["block2"])
    assert len(model.blocks) == 2 and not hasattr(model, "norm")
    assert list(model(image())) == ["block2"]
    whole = tiny(out_features=["block2", "last"])
    whole.load_state_dict(whole.state_dict() | model.state_dict())
    assert whole(image())["block2"].equal(model(image())["block2"])


def test_class_embeddings_go_through_the_last_block_only():
    plain, model = tiny(out_features=["block2", "last"]), tiny(
        out_features=["block2", "last"], num_classes=5
    )  # fmt: skip
    model.load_state_dict(model.state_dict() | plain.state_dict())
    features, without = model(image()), plain(image())
    assert features["classes"].shape == (2, 5, 16)
    assert features["block2"].equal(without["block2"])
    assert not features["last"].allclose(without["last"])
    # the classes read the pixels, too
    assert not features["classes"][0].allclose(features["classes"][1])


@pytest.mark.parametrize("classes", [0, 5])
def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none(classes):
    gradients = []
    for use_checkpoint in (False, True):
        model = tiny(num_classes=classes, use_checkpoint=use_checkpoint, drop_path_rate=0).train()
        generator = torch.Generator().manual_seed(0)
        features = model(image(60, 64)).values()
        sum((x * torch.randn(x.shape, generator=generator)).sum() for x in features).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        assert gradients[1][name].allclose(gradient, atol=1e-5), name


@pytest.mark.slow
def test_a_compiled_backbone_is_one_graph_and_gives_the_same():
    model = tiny(num_classes=3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for name, feature in compiled(image(50, 70)).items():
        assert feature.allclose(model(image(50, 70))[name], atol=1e-6)


def test_whole_branches_are_dropped_and_the_others_enlarged():
    block = Block(8, 2, drop_path=0.5).train()
    x = torch.ones(400, 1, 8)
    kept = block.drop(x)[:, 0, 0]
    assert set(kept.tolist()) == {0.0, 2.0} and 140 < (kept == 2).sum() < 260
    assert block.eval().drop(x) is x
    rates = [round(block.drop_path, 6) for block in tiny(drop_path_rate=0.4).blocks]
    assert rates == [0, 0.2, 0.4]


def test_layers_are_numbered_from_the_last():
    above = tiny(num_classes=3).layers_above()
    assert {name: above[name] for name in ("pos_embed", "blocks.0.norm1.weight")} == {
        "pos_embed": 2,
        "blocks.0.norm1.weight": 2,
    }
    assert above["blocks.2.mlp.fc1.bias"] == above["norm.weight"] == above["class_embedding"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, r"MODEL\.VIT\.NUM_HEADS: 3 heads cannot share 16 channels"),
        (
            {"out_features": ["block4"]},
            r"OUT_FEATURES must be some of block1, ..., block3 and last; got \['block4'\]",
        ),
        ({"out_features": []}, "OUT_FEATURES must be some of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(ValueError, match=r"a ViT takes images \(B, C, H, W\), not \(3, 64, 64\)"):
        tiny()(image()[0])
