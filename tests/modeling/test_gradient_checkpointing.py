"""Gradient checkpointing changes no gradient and no running statistic, and holds less."""

import copy

import pytest
import torch
from support import pixel_families
from support.pixel_families import FAMILIES, rankseg, sample
from support.small import KINDS, RANKSEG, evaluate, image_sample, make_model, train

from rankseg_d2.modeling import gradient_checkpointing

BOTH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
BACKBONE, HEAD = "MODEL.BACKBONE.USE_CHECKPOINT", "MODEL.SEM_SEG_HEAD.USE_CHECKPOINT"
SECTIONS = {
    "Segmenter": "VIT",
    "Segmenter OCE": "VIT",
    "UPerNet Swin": "SWIN",
    "UPerNet BEiT": "BEIT",
    "SegFormer": "MIT",
}
RESNET = {"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.RESNETS.NORM": "BN"} | {
    f"MODEL.RESNETS.{key}": value
    for key, value in {
        "DEPTH": 50,
        "WIDTH_PER_GROUP": 4,
        "STEM_OUT_CHANNELS": 8,
        "RES2_OUT_CHANNELS": 8,
        "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    }.items()
}
TIMM = {"MODEL.BACKBONE.NAME": "TimmBackbone", "MODEL.TIMM.NAME": "test_efficientnet"}
BACKBONES = {"ResNet": RESNET, "timm": TIMM}


def check_equal(models, samples):
    """Losses, gradients and buffers after a step; returns the bytes that each step held."""
    held = [bytes_held(model, samples) for model in copy.deepcopy(models)]
    plain, checkpointed = (train(model, samples) for model in models)
    torch.testing.assert_close(checkpointed, plain)
    one, other = models
    for name, parameter in one.named_parameters():
        grad = other.get_parameter(name).grad
        torch.testing.assert_close(grad, parameter.grad, msg=name)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(other.get_buffer(name), buffer, rtol=0, atol=0, msg=name)
    return held


@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "RankSeg"])
@pytest.mark.parametrize("keys", BACKBONES.values(), ids=BACKBONES)
def test_any_backbone_can_be_computed_again(keys, ranked):
    options = KINDS["mask2former"] | keys | (RANKSEG if ranked else {})
    models = [make_model(options, {BACKBONE: use}) for use in (False, True)]
    held = check_equal(models, [image_sample(), image_sample(1)])
    assert held[1] < 0.95 * held[0]
    labels = [evaluate(model, [image_sample()])[0]["sem_seg_labels"] for model in models]
    assert labels[0].equal(labels[1])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pixel_head_can_be_computed_again(family):
    options = FAMILIES[family] | rankseg(family)
    models = [
        pixel_families.make_model(options, {HEAD: use, BACKBONE: use}) for use in (False, True)
    ]
    held = check_equal(models, [sample(), sample(1)])
    assert held[1] < held[0]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "section"), SECTIONS.items(), ids=SECTIONS)
def test_backbones_have_keys_of_their_own(family, section):
    key, options = f"MODEL.{section}.USE_CHECKPOINT", FAMILIES[family] | rankseg(family)
    models = [pixel_families.make_model(options, {key: use}) for use in (False, True)]
    held = check_equal(models, [sample(), sample(1)])
    assert held[1] < held[0]


@BOTH
def test_gradient_checkpointing_changes_nothing_but_memory(kind):
    wide = {
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 1024,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
    }
    key = "MODEL.MASK_FORMER.USE_CHECKPOINT"
    models = [make_model(kind, wide, {key: use}) for use in (False, True)]
    plain, checkpointed = (train(model, [image_sample()]) for model in models)
    torch.testing.assert_close(checkpointed, plain)
    pairs = zip(*(model.named_parameters() for model in models), strict=True)
    for (name, one), (_, other) in pairs:
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    held = [bytes_held(model, [image_sample()]) for model in models]
    assert held[1] < 0.8 * held[0]


@BOTH
def test_gradient_checkpointing_runs_every_layer_of_both_decoders(kind, monkeypatch):
    layers = []

    def record(layer, *inputs, use_reentrant):
        layers.append(layer)
        return layer(*inputs)

    monkeypatch.setattr(gradient_checkpointing, "checkpoint", record)
    encoder = {
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
    }
    model = make_model(encoder | kind, {"MODEL.MASK_FORMER.USE_CHECKPOINT": True})
    train(model, [image_sample()])
    assert len(layers) == 1 + model.sem_seg_head.predictor.num_layers
    evaluate(model, [image_sample()])
    assert len(layers) == 1 + model.sem_seg_head.predictor.num_layers


def bytes_held(model, samples):
    """What the forward pass of a training step keeps for the backward pass."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = model.train()(samples)
    assert sum(losses.values()).requires_grad
    return sum(held.values())
