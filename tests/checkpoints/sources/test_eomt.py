"""EoMT's public names, and the numbers of transformers' model with the same weights."""

import pytest
import timm
import torch
from support import eomt, golden, pixel_golden, small

from rankseg_d2.checkpoints.sources import eomt as tables
from rankseg_d2.checkpoints.sources import find_table
from rankseg_d2.convert.converting import export
from rankseg_d2.engine import Checkpointer
from rankseg_d2.modeling.backbone import VisionTransformer
from rankseg_d2.modeling.backbone.vit import resize_patches

TABLES = {"authors": tables.AUTHORS, "transformers": tables.HUGGINGFACE}
ALL = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
CONSTANTS = {  # of their files, which our model computes or does not have
    "authors": [f"network.{name}" for name in ("attn_mask_probs", "encoder.pixel_mean")],
    "transformers": ["attn_mask_probs"],
}
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "image_size": 64,
    "patch_size": 16, "num_blocks": 3, "num_queries": 10, "num_labels": 7,
}  # fmt: skip
SHARES = {"free": 0, "masked": 1}


def public(table):
    """Weights under a library's names, which give them their values."""
    model = eomt.make()
    theirs = table.to_theirs(model.state_dict())
    theirs = {name: pixel_golden.value_of(name, x.shape) for name, x in theirs.items()}
    return theirs | {"criterion.empty_weight": model.criterion.empty_weight}


@torch.no_grad()
def predictions(model, images, share):
    """(class logits, mask logits) of each output, with so many of the queries masked."""
    model.train(bool(share)).sem_seg_head.predictor.anneal(0 if share else None)
    outputs = model.decide(model.network(images))
    return [(a, b[:, :, 0]) for a, b in zip(outputs.logits, outputs.masks, strict=True)]


@ALL
def test_each_weight_has_a_public_name_and_back(table):
    theirs, own = public(table), eomt.make().state_dict()
    assert find_table(theirs) is table and find_table(own) is None
    ours = table.to_ours(theirs)
    assert {n: x.shape for n, x in ours.items()} == {n: x.shape for n, x in own.items()}
    back = table.to_theirs(ours)
    assert back.keys() == theirs.keys() and all(back[n].equal(x) for n, x in theirs.items())


@pytest.mark.parametrize("library", TABLES)
def test_a_public_file_is_loaded_as_it_is(library, tmp_path, caplog):
    table = TABLES[library]
    theirs = public(table)
    torch.save(theirs | {n: torch.ones(3) for n in CONSTANTS[library]}, tmp_path / "public.bin")
    model = eomt.make()
    with caplog.at_level("INFO"):
        Checkpointer(model).load(str(tmp_path / "public.bin"))
    assert "0 fresh; of the file's, 0 unused" in caplog.text
    expected = table.to_ours(theirs)
    assert all(x.equal(expected[name]) for name, x in model.state_dict().items())


def test_positions_of_another_grid_are_resized(tmp_path):
    theirs = public(tables.HUGGINGFACE)
    torch.save(theirs, tmp_path / "public.bin")
    model = eomt.make({"MODEL.VIT.IMAGE_SIZE": 96})
    Checkpointer(model).load(str(tmp_path / "public.bin"))
    grid = theirs["embeddings.position_embeddings.weight"].T.unflatten(1, (4, 4))[None]
    grid = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(model.backbone.pos_embed[0], grid)


def test_a_file_is_converted_and_back(tmp_path):
    theirs, cfg = public(tables.AUTHORS), small.make_config(eomt.KEYS)
    cfg.DATASETS.TEST = ("shapes_panoptic_val",)
    torch.save(theirs, tmp_path / "public.bin")
    export(cfg, tmp_path / "public.bin", tmp_path / "hf.pth", "transformers")
    found = torch.load(tmp_path / "hf.pth")["state_dict"]
    assert tables.HUGGINGFACE.is_of(found)
    export(cfg, tmp_path / "hf.pth", tmp_path / "back.pth", "eomt")
    back = torch.load(tmp_path / "back.pth")["state_dict"]
    assert all(back[name].equal(x) for name, x in theirs.items() if "empty" not in name)


# Numbers


@pytest.mark.parametrize("kind", SHARES)
def test_golden_numbers(kind):
    """Of transformers 5.24, with weights by their names, masked in all blocks or in none."""
    arrays, model = golden.load("eomt.npz"), eomt.make(eomt.ANNEALED)
    model.load_state_dict(tables.HUGGINGFACE.to_ours(public(tables.HUGGINGFACE)))
    image = golden.inputs()["image_A"][:, :64, :64].float() / 64 - 2
    found = predictions(model, image[None], SHARES[kind])
    assert len(found) == sum(name.startswith(f"{kind}/") for name in arrays) // 2
    for number, (classes, masks) in enumerate(found):
        assert arrays[f"{kind}/{number}/classes"].diff(classes[0])[1] < 1e-4
        assert arrays[f"{kind}/{number}/masks"].diff(masks[0])[1] < 1e-4


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
def test_transformers_own_model_gives_the_same_numbers(share):
    transformers = pytest.importorskip(
        "transformers", reason="compares with transformers, which is not installed"
    )
    theirs = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**SIZES)).eval()
    theirs.load_state_dict(public(tables.HUGGINGFACE), strict=False)
    theirs.attn_mask_probs.fill_(share)
    model = eomt.make(eomt.ANNEALED)
    model.load_state_dict(tables.HUGGINGFACE.to_ours(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, predict = [], theirs.predict
    theirs.predict = lambda tokens: expected.append(predict(tokens)) or expected[-1]
    with torch.no_grad():
        theirs(pixel_values=images)
    found = predictions(model, images, share)
    assert len(found) == len(expected) == (eomt.BLOCKS if share else 0) + 1
    for (classes, masks), (their_masks, their_classes) in zip(found, expected, strict=True):
        assert (classes - their_classes).abs().max() < 1e-4 * their_classes.std()
        assert (masks - their_masks).abs().max() < 1e-4 * their_masks.std()


# The weights that a training begins with


def test_weights_of_dinov2_give_timms_features_on_patches_of_another_size(tmp_path):
    theirs = timm.models.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_classes=0,
        reg_tokens=4, no_embed_class=True, init_values=0.5,
    ).eval()  # fmt: skip
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, 0.1, 0.2)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    keys = {"MODEL.VIT.DEPTH": 2, "MODEL.VIT.EMBED_DIM": 16, "MODEL.VIT.NUM_HEADS": 2}
    model = eomt.make(keys, {"MODEL.EOMT.BLOCKS": 1}).eval()
    Checkpointer(model).load(str(tmp_path / "timm.pth"))
    theirs.patch_embed.proj.weight.data = timm.layers.resample_patch_embed(
        theirs.patch_embed.proj.weight.data, [16, 16]
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs.patch_embed.proj.stride = (16, 16)
    theirs.patch_embed.img_size = (64, 64)
    with torch.no_grad():
        expected = theirs.forward_features(images)[:, 5:].mT.unflatten(2, (4, 4))
        torch.testing.assert_close(model.backbone(images)["last"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [8, 14, 16])
def test_patches_of_another_side_are_timms(side):
    weight = torch.randn(5, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    expected = timm.layers.resample_patch_embed(weight, [side, side])
    torch.testing.assert_close(resize_patches(weight, side), expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_width_are_no_weights_of_other_patches(tmp_path):
    donor = VisionTransformer(24, 5, 4, 64, patch_size=8, num_registers=4, class_position=False)
    torch.save(donor.state_dict(), tmp_path / "wide.pth")
    model = eomt.make()
    before = model.backbone.patch_embed.proj.weight.clone()
    Checkpointer(model).load(str(tmp_path / "wide.pth"))
    assert model.backbone.patch_embed.proj.weight.equal(before)
