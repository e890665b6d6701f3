import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import ShapeSpec

from rankseg_d2.modeling.backbone import D2SwinTransformer, build_resnet_deeplab_backbone

LARGE_WINDOW = {
    "embed_dim": 32,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 12,
    "patch_norm": False,
    "qkv_bias": False,
    "qk_scale": 0.3,
}


def difference(ours, theirs):
    """The largest difference of features, over the standard deviation."""
    return max(
        float((a - b).abs().max() / b.std())
        for a, b in zip(ours.values(), theirs.values(), strict=True)
    )


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ({}, {}),
        (
            LARGE_WINDOW | {"pretrain_size": 64, "out_features": ("res2", "res3")},
            LARGE_WINDOW | {"pretrain_img_size": 64, "ape": True, "out_indices": (0, 1)},
        ),
    ],
)
def test_swin_equals_detectron2s(ours, theirs):
    from detectron2.modeling.backbone import SwinTransformer

    torch.manual_seed(0)
    ours, theirs = D2SwinTransformer(**ours).eval(), SwinTransformer(**theirs).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(0, p.numel() ** -0.25 if p.dim() > 1 else 0.1)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 3, 130, 75)
        assert difference(ours(x), theirs(x)) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"DEPTH": 101, "STEM_OUT_CHANNELS": 128, "STRIDE_IN_1X1": False},
        {"RES5_DILATION": 2, "NORM": "BN"},
        {"STEM_TYPE": "basic", "RES4_DILATION": 2, "RES5_DILATION": 4, "NUM_GROUPS": 2},
    ],
)
def test_deeplab_resnet_equals_detectron2s(deeplab, options):
    cfg = get_cfg()
    deeplab.add_deeplab_config(cfg)
    cfg.MODEL.RESNETS.update(options)
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 16
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    rgb = ShapeSpec(channels=3)
    ours = build_resnet_deeplab_backbone(cfg, rgb).eval()
    theirs = deeplab.build_resnet_deeplab_backbone(cfg, rgb).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.output_shape() == theirs.output_shape()
    trained = [[p.requires_grad for p in model.parameters()] for model in (ours, theirs)]
    assert trained[0] == trained[1]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 70, 97)
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5
