"""`rankseg-d2 convert` of ImageNet weights: a backbone alone, for images of another size."""

import numpy as np
import pytest
import timm
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file

from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import convert
from rankseg_d2.engine import Checkpointer
from rankseg_d2.position_encoding import resize_positions

SMALL = [
    "MODEL.DEVICE=cpu",
    "MODEL.VIT.EMBED_DIM=64",
    "MODEL.VIT.DEPTH=2",
    "MODEL.VIT.NUM_HEADS=1",
    "MODEL.VIT.IMAGE_SIZE=96",
]


@pytest.fixture
def cfg():
    return get_config("ade20k/semantic/segmenter_vit_ti", SMALL)


def timm_weights():
    model = timm.models.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=5
    )
    return {name: torch.randn_like(x) for name, x in model.state_dict().items()}


def test_a_vit_of_timm_becomes_a_backbone_with_positions_for_the_configs_images(cfg, tmp_path):
    weights = timm_weights()
    torch.save(weights, tmp_path / "timm.pth")
    found = load_file(convert(cfg, tmp_path / "timm.pth", tmp_path / "vit.safetensors"))
    model = build_model(cfg)
    own = {name for name in model.state_dict() if name.startswith("backbone.")}
    assert found.keys() == own
    assert found["backbone.pos_embed"].equal(resize_positions(weights["pos_embed"], (6, 6)))
    rest = {name for name in own if name != "backbone.pos_embed"}
    assert all(found[name].equal(weights[name.removeprefix("backbone.")]) for name in rest)
    Checkpointer(model).load(str(tmp_path / "vit.safetensors"))
    assert all(model.state_dict()[name].equal(x) for name, x in found.items())


def test_a_backbone_that_lacks_weights_is_refused(cfg, tmp_path):
    weights = timm_weights()
    del weights["norm.bias"]
    torch.save(weights, tmp_path / "timm.pth")
    with pytest.raises(ValueError, match=r"backbone\.norm\.bias is in the model only"):
        convert(cfg, tmp_path / "timm.pth", tmp_path / "vit.safetensors")


def test_a_file_of_another_kind_is_refused(cfg, tmp_path):
    np.savez(tmp_path / "a.npz", **{"Transformer/encoder_norm/scale": np.ones(64)})
    with pytest.raises(ValueError, match="does not fit this config"):
        convert(cfg, tmp_path / "a.npz", tmp_path / "vit.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit this config"):
        convert(cfg, tmp_path / "w.pth", tmp_path / "vit.safetensors")
