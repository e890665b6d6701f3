"""BEiT computes what timm's computes, and takes images and weights of other sizes."""

import logging

import pytest
import timm
import torch
from detectron2.modeling import build_model
from support.small import make_config, picture
from torch import nn

from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.optimizer import parameter_groups
from rankseg_d2.modeling.backbone import BEiT
from rankseg_d2.modeling.backbone.beit import offset_index
from rankseg_d2.position_encoding import resize_offsets

SIZE = {"embed_dim": 16, "depth": 3, "num_heads": 2, "patch_size": 8}
OPTIONS = SIZE | {"out_blocks": (1, 2, 3, 3), "drop_path_rate": 0.0, "norm": "BN"}
CONFIG = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.BACKBONE.NAME": "BEiT",
    "MODEL.BEIT.EMBED_DIM": 16,
    "MODEL.BEIT.DEPTH": 3,
    "MODEL.BEIT.NUM_HEADS": 2,
    "MODEL.BEIT.PATCH_SIZE": 8,
    "MODEL.BEIT.OUT_BLOCKS": [1, 2, 2, 3],
    "MODEL.BEIT.IMG_SIZE": [64, 96],
    "MODEL.BEIT.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
}


def beit(size=(64, 64), **more):
    torch.manual_seed(0)
    model = BEiT(size, **OPTIONS | more).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def timms(size):
    torch.manual_seed(1)
    model = timm.models.beit.Beit(
        img_size=size, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1, **SIZE
    )
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("size", [(64, 64), (48, 72), (8, 40)])
def test_blocks_and_names_are_timms(size):
    theirs, model = timms(size), beit(size)
    missing, _ = model.load_state_dict(theirs.state_dict(), strict=False)
    assert {name.split(".")[0] for name in missing} == {"fpn1", "fpn2"}
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        maps = theirs.forward_intermediates(images, indices=3, intermediates_only=True)
        found = model(images)
        expected = [model.fpn1(maps[0]), model.fpn2(maps[1]), maps[2]]
    for name, x in zip(("res2", "res3", "res4"), expected, strict=True):
        torch.testing.assert_close(found[name], x)


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (37, 51), (7, 3), (8, 64)])
def test_levels_have_their_strides(size):
    model = beit()
    with torch.no_grad():
        found = model(torch.randn(1, 3, *size, dtype=torch.float64))
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    shapes = {name: tuple(x.shape[-2:]) for name, x in found.items()}
    half = max(1, rows // 2), max(1, columns // 2)
    assert shapes == {
        "res2": (4 * rows, 4 * columns),
        "res3": (2 * rows, 2 * columns),
        "res4": (rows, columns),
        "res5": half,
    }
    assert {name: shape.stride for name, shape in model.output_shape().items()} == {
        "res2": 2, "res3": 4, "res4": 8, "res5": 16
    }  # fmt: skip


def test_a_smaller_image_is_read_with_the_biases_of_its_offsets():
    large, small = beit((64, 64)), beit((40, 24))
    weights = dict(large.state_dict())
    center = torch.arange(15 * 15).view(15, 15)[7 - 4 : 7 + 5, 7 - 2 : 7 + 3].flatten()
    rows = torch.cat([center, torch.arange(225, 228)])
    for name, value in weights.items():
        if name.endswith("relative_position_bias_table"):
            weights[name] = value[rows]
    small.load_state_dict(weights)
    images = torch.randn(2, 3, 40, 24, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(large(images).values(), small(images).values(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_larger_image_is_an_error_that_names_the_windows():
    with pytest.raises(ValueError, match=r"at most 64x64, got 64x65; set TEST\.SLIDING_WINDOW"):
        beit()(torch.zeros(1, 3, 64, 65, dtype=torch.float64))


def test_an_image_without_a_batch_is_an_error():
    with pytest.raises(ValueError, match=r"takes images \(B, C, H, W\), not \(3, 32, 32\)"):
        beit()(torch.zeros(3, 32, 32))


def test_offsets_are_counted_from_the_query_to_the_key():
    index = offset_index((2, 3), (2, 3))
    grid, first, last = 15, 1, 6
    assert index[first, first] == 7 == index[last, last]  # offset (0, 0)
    assert index[last, first] == grid - 1 and index[first, last] == 0
    assert index[0].tolist() == [17] + [15] * 6
    assert index[1:, 0].tolist() == [16] * 6


def test_batches_and_gradient_checkpointing_change_nothing():
    model, again = beit(), beit(use_checkpoint=True).train()
    images = torch.randn(3, 3, 64, 48, dtype=torch.float64)
    together = model(images)
    for name, x in together.items():
        torch.testing.assert_close(x[1:2], model(images[1:2])[name])
    model.train()
    for one in (model, again):
        sum(x.square().sum() for x in one(images).values()).backward()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert a.grad.any()
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"size": (60, 64)}, r"IMG_SIZE must be multiples of MODEL\.BEIT\.PATCH_SIZE, 8"),
        ({"patch_size": 6, "size": (60, 60)}, "PATCH_SIZE must be a multiple of 4; got 6"),
        ({"num_heads": 3}, "3 heads cannot share 16 channels"),
        ({"out_blocks": (1, 2, 3, 4)}, "OUT_BLOCKS must be four blocks of 1 to 3"),
        ({"out_blocks": (1, 2, 3)}, "OUT_BLOCKS must be four blocks"),
    ],
)
def test_bad_options_are_errors(more, message):
    with pytest.raises(ValueError, match=message):
        beit(**more)


def test_layers_are_counted_as_beit_counts_them():
    model = build_model(make_config(CONFIG))
    above = model.backbone.layers_above()
    assert above.keys() == dict(model.backbone.named_parameters()).keys()
    assert above["cls_token"] == above["patch_embed.proj.weight"] == 4
    assert above["blocks.0.gamma_1"] == 3 and above["blocks.2.attn.qkv.weight"] == 1
    assert above["fpn1.0.weight"] == above["fpn2.0.bias"] == 0
    keys = {"SOLVER.BASE_LR": 1.0, "SOLVER.BACKBONE_MULTIPLIER": 1.0, "SOLVER.LAYER_DECAY": 0.5}
    keys |= {"SOLVER.WEIGHT_DECAY": 0.1, "SOLVER.WEIGHT_DECAY_EMBED": 0.2}
    groups = parameter_groups(make_config(CONFIG, keys), model)
    found = {id(x): group for group in groups for x in group["params"]}
    own = dict(model.named_parameters())
    group = found[id(own["backbone.blocks.1.attn.relative_position_bias_table"])]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.2)
    for name in ("cls_token", "blocks.1.gamma_1", "blocks.1.attn.q_bias", "blocks.1.norm1.weight"):
        assert found[id(own[f"backbone.{name}"])]["weight_decay"] == 0, name
    assert found[id(own["sem_seg_head.predictor.weight"])]["lr"] == 1


def test_weights_of_another_size_are_resized_and_the_log_says_so(tmp_path, caplog):
    weights = timms((32, 32)).state_dict()
    torch.save({"model": weights}, tmp_path / "beit.pth")
    model = build_model(make_config(CONFIG))
    with caplog.at_level(logging.INFO):
        Checkpointer(model, str(tmp_path)).load(str(tmp_path / "beit.pth"))
    assert "resized from 52 to 348 offsets" in caplog.text
    for number, block in enumerate(model.backbone.blocks):
        table = weights[f"blocks.{number}.attn.relative_position_bias_table"]
        found = block.attn.relative_position_bias_table.data
        torch.testing.assert_close(found, resize_offsets(table, (8, 12), others=3).float())
    with torch.no_grad():
        model.eval()([{"image": picture()}])


def test_a_table_of_no_square_grid_is_refused(tmp_path, caplog):
    model = build_model(make_config(CONFIG))
    name = "backbone.blocks.0.attn.relative_position_bias_table"
    before = model.state_dict()[name].clone()
    torch.save({"model": model.state_dict() | {name: torch.ones(33, 2)}}, tmp_path / "odd.pth")
    with caplog.at_level(logging.INFO):
        Checkpointer(model, str(tmp_path)).load(str(tmp_path / "odd.pth"))
    assert "its 30 offsets are not those of a square grid" in caplog.text
    assert model.state_dict()[name].equal(before)
