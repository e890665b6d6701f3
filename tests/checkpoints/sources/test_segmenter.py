"""Names of other libraries' Segmenters and ViTs, both ways, and whole files by Checkpointer."""

import gzip
import hashlib
import json
import logging
import zipfile

import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from support import golden, pixel_golden
from torch import nn

from rankseg_d2.checkpoints import read_checkpoint, read_weights
from rankseg_d2.checkpoints.sources import find_table
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta

with gzip.open(golden.DATA / "pixels" / "segmenter_keys.json.gz") as file:
    KEYS = {name: dict(keys) for name, keys in json.load(file).items()}
BACKBONE = {
    name: shape
    for name, shape in KEYS["fork_segmenter_mask_vitb_ade150"].items()
    if name.startswith("backbone.")
}
COCO = "coco_stuff/semantic/segmenter"
# list of names: the config of that model here
MODELS = {
    "fork_segmenter_mask_vitb_ade150": "ade20k/semantic/segmenter_vit_b",
    "fork_segmenter_rankseg_vitb_ade150": "ade20k/semantic/segmenter_vit_b_rankseg",
    "fork_segmenter_oce_rankseg_vitb_ade150": "ade20k/semantic/segmenter_oce_vit_b_rankseg",
    "fork_segmenter_oracle_vitb_ade150": "ade20k/semantic/segmenter_vit_b_rankseg_gt",
    "fork_segmenter_transdec_vitb_cocostuff171": f"{COCO}_decoder_vit_b_rankseg",
    "fork_segmenter_pooling_vitb_cocostuff171": f"{COCO}_pooling_vit_b_rankseg",
    "mmseg_segmenter_mask_vitb_ade150": "ade20k/semantic/segmenter_vit_b",
    "mmseg_segmenter_linear_vits_ade150": "ade20k/semantic/segmenter_linear_vit_s",
    "rstrudel_segmenter_mask_b_ade150": "ade20k/semantic/segmenter_vit_b",
}


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_are_those_of_the_library_both_ways(name):
    keys = KEYS[name]
    if not any(key.startswith(("backbone.", "encoder.")) for key in keys):
        keys = keys | {"backbone.ln1.weight": [768], "backbone.cls_token": [1, 1, 768]}
    is_mmseg = name.startswith("mmseg")
    opts = ["MODEL.DEVICE=cpu", f"MODEL.VIT.PATCH_BIAS={not is_mmseg}"]
    own = build_on_meta(get_config(MODELS[name], opts)).state_dict()
    table = find_table(keys)
    theirs = table.to_theirs(own)
    shapes = {key: list(x.shape) for key, x in theirs.items()}
    unused = {key for key in keys if key.startswith("encoder.head.") or key.endswith(".pe")}
    if any(key.startswith("encoder.") for key in keys) or "backbone.pos_embed" in keys:
        assert shapes == {key: shape for key, shape in keys.items() if key not in unused}
    else:
        heads = {key: shape for key, shape in shapes.items() if key.startswith("decode_head.")}
        assert heads == {k: s for k, s in keys.items() if k[:6] == "decode" and k not in unused}
        rest = shapes.keys() - heads.keys() - BACKBONE.keys()
        assert rest == ({"backbone.cls_emb"} if "oce" in name else set())
    back = table.to_ours(theirs | {key: torch.zeros(1) for key in unused})
    assert {key: x.shape for key, x in back.items()} == {key: x.shape for key, x in own.items()}


def test_names_are_mapped_there_and_back_without_a_change_of_values():
    cfg = get_config(
        "ade20k/semantic/segmenter_vit_ti_rankseg", ["MODEL.DEVICE=cpu", "MODEL.VIT.DEPTH=2"]
    )
    own = build_model(cfg).state_dict()
    table = find_table(["decode_head.ml_fc.W", "decode_head.proj_patch", "backbone.ln1.weight"])
    theirs = table.to_theirs(own)
    assert theirs["decode_head.proj_patch"].equal(own["sem_seg_head.proj_patch.weight"].T)
    assert theirs["decode_head.blocks.2.norm1.bias"].equal(
        own["sem_seg_head.blocks.1.norm1.bias"]
    )
    back = table.to_ours(theirs)
    assert all(back[name].equal(x) for name, x in own.items())


def test_a_file_of_mmsegmentation_loads_as_it_is(tmp_path, caplog):
    opts = ["MODEL.DEVICE=cpu", "MODEL.VIT.DEPTH=2", "MODEL.VIT.IMAGE_SIZE=64"]
    cfg = get_config("ade20k/semantic/segmenter_vit_ti", opts)
    source, model = build_model(cfg), build_model(cfg)
    table = find_table(["decode_head.patch_proj.weight", "backbone.ln1.weight"])
    theirs = table.to_theirs(source.state_dict())
    del theirs["backbone.patch_embed.projection.bias"]  # zero here, which theirs does not have
    meta = {"mmseg_version": "1.2.2", "CLASSES": ["wall", "sky"]}
    torch.save({"meta": meta, "state_dict": theirs}, tmp_path / "theirs.pth")
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "theirs.pth"))
    for name, x in source.state_dict().items():
        assert model.state_dict()[name].equal(x), name
    assert "fresh: backbone.patch_embed.proj.bias" in caplog.text


# AugReg's .npz files


@pytest.fixture(scope="module")
def augreg():
    return json.loads((golden.DATA / "pixels" / "augreg_npz.json").read_text())


def arrays_of(facts, prefix=""):
    return {
        f"{prefix}{name}": 0.1 * npz_noise(name, shape).numpy()
        for name, shape in facts["npz_shapes"].items()
    }


def npz_noise(name, shape):
    """The values of an array, by its name."""
    seed = int.from_bytes(hashlib.sha256(f"npz:{name}".encode()).digest()[:8], "little") % 2**63
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Model(nn.Module):
    def __init__(self, image_size):
        super().__init__()
        options = {"IMAGE_SIZE": image_size, "EMBED_DIM": 64, "DEPTH": 2, "NUM_HEADS": 4}
        opts = [f"MODEL.VIT.{key}={value}" for key, value in options.items()]
        cfg = get_config("ade20k/semantic/segmenter_vit_ti", ["MODEL.DEVICE=cpu", *opts])
        self.backbone = build_backbone(cfg)

    def checkpoint_rows(self):
        rows = self.backbone.checkpoint_rows()
        return {f"backbone.{name}": value for name, value in rows.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_a_vit_of_augreg_loads_as_it_is(tmp_path, augreg, prefix):
    np.savez(tmp_path / "vit.npz", **arrays_of(augreg, prefix))
    model = Model(384)
    Checkpointer(model).load(str(tmp_path / "vit.npz"))
    table = find_table(pixel_golden.load("segmenter_mask_vitt")[1]["grad_names"])
    theirs = table.to_theirs(model.state_dict())
    theirs = {name.removeprefix("backbone."): x for name, x in theirs.items()}
    assert theirs.keys() == augreg["expected_mmseg_keys"].keys()
    for name, expected in augreg["expected_mmseg_keys"].items():
        check_values(theirs[name], expected)


@pytest.mark.parametrize("patches", [30, 32, 40])
def test_its_positions_are_resized_and_the_log_says_so(tmp_path, augreg, patches, caplog):
    np.savez_compressed(tmp_path / "vit.npz", **arrays_of(augreg))
    model = Model(16 * patches)
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "vit.npz"))
    check_values(model.backbone.pos_embed, augreg["pos_embed_resized"][f"{patches}x{patches}"])
    assert f"resized from 577 to {1 + patches**2} positions: backbone.pos_embed" in caplog.text


def check_values(x, expected):
    assert list(x.shape) == expected["shape"]
    assert x.double().sum().item() == pytest.approx(expected["sum"], abs=1e-3)
    assert x.double().abs().sum().item() == pytest.approx(expected["abs_sum"], rel=1e-5)
    assert x.flatten()[:6].tolist() == pytest.approx(expected["first6"], abs=1e-6)


def test_names_of_augreg_are_written_for_heads_of_64_channels():
    table = find_table(["cls", "Transformer/encoder_norm/scale"])
    own = {
        "backbone.blocks.0.attn.qkv.weight": torch.randn(3 * 128, 128),
        "backbone.blocks.0.attn.qkv.bias": torch.randn(3 * 128),
        "backbone.blocks.0.attn.proj.weight": torch.randn(128, 128),
        "backbone.patch_embed.proj.weight": torch.randn(128, 3, 16, 16),
    }
    theirs = table.to_theirs(own)
    attention = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    assert theirs[f"{attention}/key/kernel"].shape == (128, 2, 64)
    assert theirs[f"{attention}/out/kernel"].shape == (2, 64, 128)
    assert all(x.equal(own[name]) for name, x in table.to_ours(theirs).items())


def test_half_precision_becomes_single(tmp_path, augreg):
    arrays = {name: x.astype(np.float16) for name, x in arrays_of(augreg).items()}
    np.savez(tmp_path / "vit.npz", **arrays)
    weights = read_weights(tmp_path / "vit.npz")
    assert {x.dtype for x in weights.values()} == {torch.float32}


def test_other_npz_files_are_refused(tmp_path, augreg):
    np.savez(tmp_path / "resnet.npz", **{"resnet/root_block/kernel": np.ones(2)})
    with pytest.raises(ValueError, match=r"resnet\.npz is an \.npz file, but not of a ViT's"):
        read_checkpoint(tmp_path / "resnet.npz")
    arrays = arrays_of(augreg) | {"cls": np.array([{"a": 1}], dtype=object)}
    np.savez(tmp_path / "objects.npz", **arrays)
    with pytest.raises(ValueError, match=r"objects\.npz cannot be read .*allow_pickle=False"):
        read_checkpoint(tmp_path / "objects.npz")
    np.savez(tmp_path / "words.npz", **arrays_of(augreg) | {"cls": np.array(["word"])})
    with pytest.raises(ValueError, match=r"words\.npz cannot be read"):
        read_checkpoint(tmp_path / "words.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Transformer/encoder_norm/scale.npy", bytes(10_000_000))
    with pytest.raises(ValueError, match="unpacks to more than twice its bytes"):
        read_checkpoint(tmp_path / "bomb.npz")
