"""The transformer backbones work under every kind of head, with and without a ranking."""

import pytest
from support import pixel_families, small
from support.backbones import SMALL
from support.pixel_families import FAMILIES, rankseg, sample

PIXELS = ("UPerNet Swin", "SegFormer")
EACH = pytest.mark.parametrize("backbone", SMALL)


@EACH
@pytest.mark.parametrize("family", PIXELS)
@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "RankSeg"])
def test_pixel_classifiers_train_and_predict(backbone, family, ranked):
    options = FAMILIES[family] | (rankseg(family) if ranked else {}) | SMALL[backbone]
    model = pixel_families.make_model(options)
    samples = [sample(0, (63, 90)), sample(1, (37, 65))]  # neither needs a multiple of a stride
    losses = small.train(model, samples)
    assert all(loss.isfinite() for loss in losses.values())
    assert ("loss_ml" in losses) is ranked
    if not ranked:
        assert small.without_gradient(model) == []
    for result, one in zip(small.evaluate(model, samples), samples, strict=True):
        assert result["sem_seg_labels"].shape == one["image"].shape[1:]
        assert ("ranking" in result) is ranked


@EACH
@pytest.mark.parametrize("kind", small.KINDS)
@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "RankSeg"])
def test_mask_classifiers_train_and_predict(backbone, kind, ranked):
    options = small.KINDS[kind] | (small.RANKSEG if ranked else {}) | SMALL[backbone]
    model = small.make_model(options)
    samples = [small.image_sample(0, size=(63, 90)), small.image_sample(1, size=(60, 65))]
    losses = small.train(model, samples)
    assert all(loss.isfinite() for loss in losses.values())
    assert ("loss_ml" in losses) is ranked
    for result, one in zip(small.evaluate(model, samples), samples, strict=True):
        assert small.scores_of(result).shape[1:] == one["image"].shape[1:]
        assert ("ranking" in result) is ranked
