"""mmsegmentation's Segmenter with random weights, loaded here, gives the same numbers."""

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources import find_table
from rankseg_d2.config import get_config

pytest.importorskip("mmseg", reason="compares with mmsegmentation, which is not installed")
models = pytest.importorskip(
    "mmseg.models", reason="mmsegmentation does not import here", exc_type=ImportError
)

CLASSES, WIDTH = 9, 64
HEADS = {  # our config, their head
    "segmenter_vit_ti": {
        "type": "SegmenterMaskTransformerHead", "num_layers": 2, "num_heads": 1,
        "embed_dims": WIDTH,
    },
    "segmenter_linear_vit_s": {"type": "FCNHead", "num_convs": 0, "concat_input": False},
}  # fmt: skip


def make_theirs(head):
    backbone = {
        "type": "VisionTransformer", "img_size": (64, 64), "patch_size": 16, "embed_dims": WIDTH,
        "num_layers": 3, "num_heads": 2, "drop_path_rate": 0.1, "final_norm": True,
        "with_cls_token": True, "interpolate_mode": "bicubic",
        "norm_cfg": {"type": "LN", "eps": 1e-6, "requires_grad": True},
    }  # fmt: skip
    shared = {
        "in_channels": WIDTH, "channels": WIDTH, "num_classes": CLASSES, "dropout_ratio": 0.0,
        "loss_decode": {"type": "CrossEntropyLoss"},
    }  # fmt: skip
    config = {
        "type": "EncoderDecoder", "backbone": backbone, "decode_head": shared | head,
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    model = models.build_segmentor(config).eval()
    for name, weight in model.state_dict().items():  # so that every weight counts
        is_scale = weight.dim() == 1 and name.endswith("weight")
        weight.normal_(float(is_scale), 0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
def test_logits_of_random_weights_are_theirs(name, size):
    torch.manual_seed(0)
    theirs = make_theirs(HEADS[name])
    values = {"EMBED_DIM": WIDTH, "DEPTH": 3, "NUM_HEADS": 2, "IMAGE_SIZE": 64, "PATCH_BIAS": False}
    keys = [f"MODEL.VIT.{key}={value}" for key, value in values.items()]
    keys += [f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={CLASSES}", "MODEL.DEVICE=cpu"]
    ours = build_model(get_config(f"ade20k/semantic/{name}", keys)).eval()
    weights = theirs.state_dict()
    table = find_table(weights)
    ours.load_state_dict(table.to_ours(weights))
    assert table.to_theirs(ours.state_dict()).keys() == weights.keys()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs.encode_decode(images, [{"img_shape": size, "ori_shape": size}] * 2)
        logits = ours.decide(ours.network(images)).logits[-1]
    found = F.interpolate(logits, size, mode="bilinear")
    assert (found - expected).abs().max() < 1e-4 * expected.std()
