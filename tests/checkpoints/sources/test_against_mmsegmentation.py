"""mmsegmentation's DeepLabV3 and EncNet with random weights, loaded here, give the same numbers."""

import pytest
import torch
from detectron2.modeling import build_model

from rankseg_d2.checkpoints.sources.deeplab import DEEPLAB
from rankseg_d2.checkpoints.sources.encnet import ENCNET
from rankseg_d2.config import get_config

pytest.importorskip("mmseg", reason="compares with mmsegmentation, which is not installed")
models = pytest.importorskip(
    "mmseg.models", reason="mmsegmentation does not import here", exc_type=ImportError
)

CLASSES, CHANNELS = 9, 32
BN = {"type": "BN"}
AUXILIARY = {
    "type": "FCNHead", "in_channels": 1024, "in_index": 2, "channels": 16, "num_convs": 1,
    "concat_input": False, "num_classes": CLASSES, "norm_cfg": BN,
    "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4},
}  # fmt: skip
SHARED = {"channels": CHANNELS, "num_classes": CLASSES, "norm_cfg": BN}
HEADS = {  # table, their head, our keys
    "deeplab": (
        DEEPLAB,
        {"type": "ASPPHead", "in_channels": 2048, "in_index": 3, "dilations": (1, 2, 4, 6)},
        ["MODEL.SEM_SEG_HEAD.ASPP_DILATIONS=[2, 4, 6]"],
    ),
    "encnet": (
        ENCNET,
        {"type": "EncHead", "in_channels": [512, 1024, 2048], "in_index": (1, 2, 3)}
        | {"num_codes": 8, "add_lateral": True},
        ["MODEL.SEM_SEG_HEAD.NAME=EncHead", "MODEL.SEM_SEG_HEAD.ENCODING.CODES=8"]
        + ["MODEL.SEM_SEG_HEAD.IN_FEATURES=['res3', 'res4', 'res5']"],
    ),
}


def make_theirs(head):
    backbone = {
        "type": "ResNetV1c", "depth": 50, "dilations": (1, 1, 2, 4), "strides": (1, 2, 1, 1),
        "contract_dilation": True, "norm_cfg": BN, "style": "pytorch",
    }  # fmt: skip
    config = {
        "type": "EncoderDecoder", "backbone": backbone, "decode_head": SHARED | head,
        "auxiliary_head": AUXILIARY, "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    model = models.build_segmentor(config).eval()
    for name, weight in model.state_dict().items():  # so that every weight counts
        if name.endswith(("running_var", "bn.weight")):
            weight.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            weight.normal_(std=0.1)
        elif name.endswith("conv_seg.weight"):
            weight.normal_()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
def test_logits_of_random_weights_are_theirs(kind, size):
    torch.manual_seed(0)
    table, head, keys = HEADS[kind]
    theirs = make_theirs(head)
    keys = [f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={CLASSES}", *keys]
    keys += [f"MODEL.SEM_SEG_HEAD.CONVS_DIM={CHANNELS}", "MODEL.SEM_SEG_HEAD.AUXILIARY.CHANNELS=16"]
    keys += ["MODEL.RESNETS.DEPTH=50", "MODEL.DEVICE=cpu"]
    ours = build_model(get_config("ade20k/semantic/deeplab_r101c", keys)).eval()
    weights = table.to_ours(theirs.state_dict())
    assert ours.load_state_dict(weights, strict=False).missing_keys == []
    assert table.to_theirs(ours.state_dict()).keys() == theirs.state_dict().keys()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        outputs = ours.decide(ours.network(images))
        expected = theirs.encode_decode(images, [{"img_shape": size, "ori_shape": size}] * 2)
        found = torch.nn.functional.interpolate(outputs.logits[-1], size, mode="bilinear")
        aside = ours.sem_seg_head.auxiliary(ours.backbone(images))
        expected_aside = theirs.auxiliary_head(theirs.extract_feat(images))
    for one, other in ((found, expected), (aside, expected_aside)):
        assert (one - other).abs().max() < 1e-4 * other.std()
