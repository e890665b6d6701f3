"""The transformer backbones work under every kind of head, with and without a ranking."""

import pytest
from support import pixel_families, small
from support.pixel_families import FAMILIES, rankseg, sample

_ADAPTER = {
    "MODEL.VIT_ADAPTER.CONV_CHANNELS": 4,
    "MODEL.VIT_ADAPTER.HEADS": 2,
    "MODEL.VIT_ADAPTER.NORM": "BN",
}
BACKBONES = {
    "MiT": {
        "MODEL.BACKBONE.NAME": "MixTransformer",
        "MODEL.MIT.EMBED_DIMS": [8, 8, 16, 16],
        "MODEL.MIT.DEPTHS": [1, 1, 1, 1],
        "MODEL.MIT.NUM_HEADS": [1, 1, 2, 2],
        "MODEL.MIT.REDUCTIONS": [4, 2, 2, 1],
        "MODEL.MIT.DROP_PATH_RATE": 0.0,
    },
    "CSWin": {
        "MODEL.BACKBONE.NAME": "CSWinTransformer",
        "MODEL.CSWIN.EMBED_DIM": 8,
        "MODEL.CSWIN.DEPTHS": [1, 1, 1, 1],
        "MODEL.CSWIN.NUM_HEADS": [2, 2, 2, 2],
        "MODEL.CSWIN.STRIPE_WIDTHS": [1, 2, 3],
        "MODEL.CSWIN.DROP_PATH_RATE": 0.0,
    },
    "VOLO": {
        "MODEL.BACKBONE.NAME": "VOLO",
        "MODEL.VOLO.IMAGE_SIZE": 64,
        "MODEL.VOLO.EMBED_DIMS": [8, 16],
        "MODEL.VOLO.DEPTHS": [1, 1, 1, 1],
        "MODEL.VOLO.NUM_HEADS": [1, 2],
        "MODEL.VOLO.STEM_DIM": 8,
        "MODEL.VOLO.NORM": "BN",
        "MODEL.VOLO.DROP_PATH_RATE": 0.0,
    },
    "SeMask": {
        "MODEL.BACKBONE.NAME": "D2SeMaskSwinTransformer",
        "MODEL.SWIN.EMBED_DIM": 8,
        "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
        "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 4],
        "MODEL.SWIN.WINDOW_SIZE": 4,
        "MODEL.SWIN.DROP_PATH_RATE": 0.0,
        "MODEL.SEMASK.WINDOW_SIZE": 5,
    },
    "ViT-Adapter": {
        "MODEL.BACKBONE.NAME": "ViTAdapter",
        "MODEL.VIT.EMBED_DIM": 16,
        "MODEL.VIT.DEPTH": 4,
        "MODEL.VIT.NUM_HEADS": 2,
        "MODEL.VIT.IMAGE_SIZE": 64,
        "MODEL.VIT.DROP_PATH_RATE": 0.0,
    }
    | _ADAPTER,
    "ViT-Adapter on BEiT": {
        "MODEL.BACKBONE.NAME": "BEiTAdapter",
        "MODEL.BEIT.EMBED_DIM": 16,
        "MODEL.BEIT.DEPTH": 4,
        "MODEL.BEIT.NUM_HEADS": 2,
        "MODEL.BEIT.IMG_SIZE": [96, 96],
        "MODEL.BEIT.DROP_PATH_RATE": 0.0,
    }
    | _ADAPTER,
}
PIXELS = ("UPerNet Swin", "SegFormer")
EACH = pytest.mark.parametrize("backbone", BACKBONES)


@EACH
@pytest.mark.parametrize("family", PIXELS)
@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "RankSeg"])
def test_pixel_classifiers_train_and_predict(backbone, family, ranked):
    options = FAMILIES[family] | (rankseg(family) if ranked else {}) | BACKBONES[backbone]
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
    options = small.KINDS[kind] | (small.RANKSEG if ranked else {}) | BACKBONES[backbone]
    model = small.make_model(options)
    samples = [small.image_sample(0, size=(63, 90)), small.image_sample(1, size=(60, 65))]
    losses = small.train(model, samples)
    assert all(loss.isfinite() for loss in losses.values())
    assert ("loss_ml" in losses) is ranked
    for result, one in zip(small.evaluate(model, samples), samples, strict=True):
        assert small.scores_of(result).shape[1:] == one["image"].shape[1:]
        assert ("ranking" in result) is ranked
