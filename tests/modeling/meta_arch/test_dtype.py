"""MODEL.DTYPE: inference in bfloat16 or float16, by autocast over float32 weights."""

import copy

import pytest
import torch
from support.pixel_families import make_model as make_pixel_model
from support.pixel_families import variants
from support.small import (
    KINDS,
    RANKSEG,
    VIDEO,
    evaluate,
    image_sample,
    make_model,
    make_sample,
    scores_of,
    train,
)
from torch import nn

from rankseg_d2.modeling.passes.sliding_window import SlidingWindow
from rankseg_d2.modeling.passes.test_time_augmentation import TestTimeAugmentation

BF16 = {"MODEL.DTYPE": "bfloat16"}
MODELS = {
    f"{kind}{'_video' if video else ''}{'_rankseg' if rankseg else ''}": (keys, video, rankseg)
    for kind, keys in KINDS.items() for video in ({}, VIDEO) for rankseg in ({}, RANKSEG)
}  # fmt: skip


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def models(request):
    """A model in float32, and one with the same weights in bfloat16."""
    one, other = make_model(*request.param), make_model(*request.param, BF16)
    other.load_state_dict(one.state_dict())
    return one, other


def types_of_convolutions(model):
    seen = set()
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    return seen


def test_inference_is_that_under_autocast(models):
    plain, half = models
    seen = types_of_convolutions(half)
    sample = make_sample(plain)
    found, = evaluate(half, [sample])
    with torch.autocast("cpu", torch.bfloat16):
        wanted, = evaluate(plain, [sample])
    assert torch.equal(scores_of(found), scores_of(wanted))
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.float32}
    assert scores_of(found).dtype is torch.float32
    if "ranking" not in wanted:  # else other categories may be kept
        exact, = evaluate(plain, [sample])
        assert not torch.equal(scores_of(found), scores_of(exact))


@pytest.mark.parametrize("keys", variants().values(), ids=variants())
def test_inference_of_pixel_classifiers_is_that_under_autocast(keys):
    plain, half = (make_pixel_model(keys, dtype) for dtype in ({}, BF16))
    sample = image_sample()
    found, = evaluate(half, [sample])
    with torch.autocast("cpu", torch.bfloat16):
        wanted, = evaluate(plain, [sample])
    assert torch.equal(scores_of(found), scores_of(wanted))


def test_training_is_in_float32(models):
    plain, half = models
    seen = types_of_convolutions(half)
    losses = [train(model, [make_sample(plain)]) for model in (plain, half)]
    assert losses[0] == losses[1]
    assert seen == {torch.float32}


@pytest.mark.parametrize("wrapper", [
    lambda model: SlidingWindow(model, (64, 64), (32, 32)),
    lambda model: TestTimeAugmentation(model, [64, 96], 200, flip=True),
    lambda model: SlidingWindow(SlidingWindow(model, (64, 64), (32, 32)), (64, 96), (64, 96)),
])  # fmt: skip
def test_several_passes_are_in_the_type(wrapper):
    half = make_model(KINDS["maskformer"], RANKSEG, BF16).eval()
    seen = types_of_convolutions(half)
    wrapper(half)([make_sample(half)])
    assert seen == {torch.bfloat16}


def test_a_copy_and_an_outer_autocast_hold():
    plain = make_model(KINDS["maskformer"]).eval()
    half = copy.deepcopy(make_model(KINDS["maskformer"], BF16).eval())
    seen = types_of_convolutions(half)
    evaluate(half, [make_sample(half)])
    seen_plain = types_of_convolutions(plain)
    with torch.autocast("cpu", torch.bfloat16):
        evaluate(plain, [make_sample(plain)])
    assert seen == seen_plain == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_pixel_decoder_of_mask2former_has_products_in_bfloat16_only(dtype):
    model = make_model(KINDS["mask2former"], {"MODEL.DTYPE": dtype}).eval()
    decoder, products, norms = model.sem_seg_head.pixel_decoder, set(), set()
    for module in decoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: products.add(out.dtype))
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, args, out: norms.add(out.dtype))
    evaluate(model, [make_sample(model)])
    assert products == {torch.bfloat16 if dtype == "bfloat16" else torch.float32}
    assert norms == {torch.float32}
