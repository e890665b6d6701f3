import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling import build_model
from support import golden
from support.small import CLASSES, MASK2FORMER, MASKFORMER, RANKSEG, make_config, picture
from torch.nn import functional as F

from rankseg_d2.config import get_config
from rankseg_d2.modeling.meta_arch import PixelClassifier, RankSegPixelClassifier
from rankseg_d2.modeling.passes import SlidingWindow, TestTimeAugmentation
from rankseg_d2.ranking import asymmetric_loss

HEADS = ("PerPixelBaselineHead", "PerPixelBaselinePlusHead")
PIXELS = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.5,
}
PLUS = PIXELS | {
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": CLASSES,
}
ENCODERS = {
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
}
VARIANTS = {
    "baseline": MASKFORMER | PIXELS,
    "baseline with encoder": MASKFORMER | PIXELS | ENCODERS,
    "plus": MASKFORMER | PLUS,
    "plus with encoder": MASKFORMER | PLUS | ENCODERS,
    "plus, last layer only": MASKFORMER | PLUS | {"MODEL.MASK_FORMER.DEEP_SUPERVISION": False},
    "plus with masked attention": MASK2FORMER | PLUS,
    "plus with masked attention, last layer only": MASK2FORMER
    | PLUS
    | {"MODEL.MASK_FORMER.DEEP_SUPERVISION": False},
}
ALL = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def enlarged(logits):
    """Maps (B, K, h, w) four times as large in both directions."""
    return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)


def make_model(*options):
    torch.manual_seed(0)
    model = build_model(make_config(*options))
    golden.fill(model)
    return model


def sample(number=0, size=(64, 96)):
    labels = (picture(number, size)[0] * CLASSES // 256).long()
    return {"image": picture(number, size), "sem_seg": labels}


def train(model, samples):
    losses = model.train()(samples)
    sum(losses.values()).backward()
    return losses


# Upstream's numbers


@pytest.fixture(scope="module", params=HEADS)
def reference(request):
    """The head's name, the model, its sample, and the reference's arrays of them."""
    options = {
        "MODEL.SEM_SEG_HEAD.NAME": request.param,
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.PIXEL_MEAN": [103.530, 116.280, 123.675],
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": 256,
        "MODEL.MASK_FORMER.HIDDEN_DIM": 256,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 2048,
        "MODEL.MASK_FORMER.NHEADS": 8,
        "MODEL.MASK_FORMER.DROPOUT": 0.0,
    }
    model = make_model(MASKFORMER, PLUS, options)
    image = golden.inputs()["image_A"][:, :64, :96]
    labels = image[0].long() * 7 // 256
    labels[:20] = 255
    picture = {"image": image, "sem_seg": labels, "height": 70, "width": 100}
    return request.param, model, picture, np.load(golden.DATA / "per_pixel.npz")


def test_weights_have_upstreams_names_and_shapes(reference):
    head, model, _, arrays = reference
    expected = [line.decode().split() for line in arrays[f"{head}/weights"]]
    found = [
        [name, "x".join(map(str, weight.shape))]
        for name, weight in model.state_dict().items()
        if name.startswith("sem_seg_head.")
    ]
    assert sorted(found) == sorted(expected)
    assert any(name == "sem_seg_head.pixel_decoder.mask_features.weight" for name, _ in found)


def test_losses_are_upstreams(reference):
    head, model, picture, arrays = reference
    expected = {
        name.removeprefix(f"{head}/"): arrays[name].item()
        for name in arrays.files
        if name.startswith(f"{head}/loss")
    }
    losses = model.train()([picture])
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-4), name


def test_scores_are_upstreams(reference):
    head, model, picture, _ = reference
    with torch.no_grad():
        scores = model.eval()([picture])[0]["sem_seg"]
    expected = golden.load("per_pixel.npz")[f"{head}/sem_seg"]
    assert expected.shape == (7, 70, 100)
    assert expected.diff(scores)[1] < 1e-3


# Behaviour


@ALL
def test_every_parameter_gets_a_gradient(options):
    model = make_model(options)
    assert type(model) is PixelClassifier
    train(model, [sample(0), sample(1)])
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize(
    ("options", "layers"),
    [("baseline", 1), ("plus", 3), ("plus, last layer only", 1)]
    + [("plus with masked attention", 4), ("plus with masked attention, last layer only", 1)],
)
def test_losses_have_upstreams_names(options, layers):
    losses = train(make_model(VARIANTS[options]), [sample()])
    names = {"loss_sem_seg", *(f"loss_sem_seg_{i}" for i in range(layers - 1))}
    assert losses.keys() == names


@ALL
def test_ignored_pixels_cost_nothing(options):
    model = make_model(options, {"MODEL.MASK_FORMER.DROPOUT": 0.0}).train()
    half = sample()
    half["sem_seg"][32:] = 255
    losses = model([half])
    frames = (half["image"] - model.pixel_mean) / model.pixel_std
    outputs = model.decide(model.network(frames[None]))
    logits = enlarged(outputs.logits[-1])[0]
    log_probability = logits.log_softmax(0).gather(0, half["sem_seg"][None] % 255)[0, :32]
    torch.testing.assert_close(losses["loss_sem_seg"], -1.5 * log_probability.mean())


@ALL
def test_images_without_a_label_train(options):
    model = make_model(options)
    empty = sample()
    empty["sem_seg"].fill_(255)
    losses = train(model, [empty])
    assert all(loss == 0 for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@ALL
@pytest.mark.parametrize("size", [(63, 94), (64, 96), (37, 65)])
def test_images_of_any_size_work(options, size):
    model = make_model(options)
    assert all(loss > 0 for loss in train(model, [sample(size=size)]).values())
    with torch.no_grad():
        results = model.eval()([sample(size=size), sample(1, size) | {"height": 50, "width": 40}])
    assert results[0]["sem_seg"].shape == (CLASSES, *size)
    assert results[1]["sem_seg"].shape == (CLASSES, 50, 40)


@ALL
def test_bfloat16_trains_with_losses_in_float32(options):
    model = make_model(options)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()([sample()])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_other_number_of_queries_than_classes_is_refused():
    with pytest.raises(
        ValueError,
        match=r"one query per class: set MODEL\.MASK_FORMER\.NUM_OBJECT_QUERIES, which is 9, to "
        r"MODEL\.SEM_SEG_HEAD\.NUM_CLASSES, which is 7",
    ):
        make_model(MASKFORMER, PLUS, {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 9})


def test_feature_that_the_decoder_cannot_read_is_refused():
    with pytest.raises(KeyError, match=r"TRANSFORMER_IN_FEATURE: 'res7' is not known"):
        make_model(MASKFORMER, PLUS, {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res7"})


def test_heads_and_architectures_of_different_families_are_refused():
    with pytest.raises(ValueError, match=r"PerPixelBaselineHead, which does not classify masks"):
        make_model(MASKFORMER, PIXELS, {"MODEL.META_ARCHITECTURE": "MaskFormer"})
    with pytest.raises(ValueError, match=r"MaskFormerHead, which does not classify pixels"):
        make_model(MASKFORMER, PIXELS, {"MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"})


def test_samples_without_a_label_map_are_refused():
    with pytest.raises(ValueError, match="a.png has no `sem_seg`, which a pixel classifier learns"):
        make_model(MASKFORMER, PIXELS).train()([{"image": picture(), "file_name": "a.png"}])


def test_upstreams_config_names_detectron2s_class_and_gets_ours(tmp_path):
    keys = {"MODEL": {"META_ARCHITECTURE": "SemanticSegmentor"}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(keys))
    assert get_config(tmp_path / "plain.yaml").MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    for head in HEADS:
        keys["MODEL"]["SEM_SEG_HEAD"] = {"NAME": head}
        (tmp_path / "pixels.yaml").write_text(yaml.safe_dump(keys))
        assert get_config(tmp_path / "pixels.yaml").MODEL.META_ARCHITECTURE == "PixelClassifier"


# With a ranking

RANKED = {name: VARIANTS[name] | RANKSEG for name in ("baseline", "plus")}
RANKS = pytest.mark.parametrize("options", RANKED.values(), ids=RANKED)


def plain_pixels(model, image, ranking):
    """Ranked logits (K, h, w) of one image, pixel by pixel and rank by rank."""
    frames = ((image - model.pixel_mean) / model.pixel_std)[None]
    outputs = model.network(frames)
    unit = torch.nn.functional.normalize
    classes, pixels = unit(outputs.classes[-1].expand(1, -1, -1)[0], dim=-1), outputs.pixels[0]
    logits = [[unit(p, dim=0) @ classes[c] for c in ranking] for p in pixels.flatten(1).T]
    logits = model.ml_norm(torch.stack([torch.stack(row) for row in logits]))
    return logits.T.unflatten(1, pixels.shape[-2:])


@RANKS
def test_pixels_are_classified_among_the_ranked_categories(options):
    model = make_model(options).eval()
    images = [picture(0), picture(1).round(decimals=-2)]
    with torch.no_grad():
        results = model([{"image": image} for image in images])
        for image, result in zip(images, results, strict=True):
            classes = result["ranking"]["classes"]
            order = result["ranking"]["scores"].argsort(descending=True)
            assert classes.tolist() == order[:4].tolist()
            expected = enlarged(plain_pixels(model, image, classes)[None])[0]
            torch.testing.assert_close(result["sem_seg_scores"], expected, rtol=1e-3, atol=1e-3)
            labels = classes[expected.argmax(0)]
            assert (result["sem_seg_labels"] == labels).float().mean() > 0.999
    assert results[0]["ranking"]["classes"].tolist() != results[1]["ranking"]["classes"].tolist()


@RANKS
def test_labels_become_ranks_and_the_rest_is_ignored(options):
    model = make_model(options, {"MODEL.MASK_FORMER.DROPOUT": 0.0}).train()
    model.ml_head.eval()
    one = sample()
    losses = model([one])
    clips = model.preprocess([one])
    with torch.no_grad():
        outputs = model.run_network(clips)
        ranking = outputs.scores[0].argsort(descending=True)[:4].tolist()
        logits = enlarged(plain_pixels(model, one["image"], ranking)[None])[0]
    ranks = torch.full((CLASSES,), 255)
    ranks[ranking] = torch.arange(4)
    targets = ranks[one["sem_seg"]]
    assert 0 < (targets == 255).sum() < targets.numel()
    loss = torch.nn.functional.cross_entropy(logits[None], targets[None], ignore_index=255)
    expected = 1.5 * loss
    torch.testing.assert_close(losses["loss_sem_seg"], expected, rtol=1e-4, atol=1e-4)
    present = torch.zeros(1, CLASSES, dtype=torch.bool)
    present[0, one["sem_seg"].unique()] = True
    torch.testing.assert_close(losses["loss_ml"], 10 * asymmetric_loss(outputs.scores, present))


@RANKS
def test_every_parameter_of_a_ranked_one_gets_a_gradient(options):
    model = make_model(options, {"MODEL.RANKSEG.TOPK": CLASSES})
    assert type(model) is RankSegPixelClassifier
    train(model, [sample(0), sample(1)])
    missing = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert missing <= {"sem_seg_head.predictor.bias"}


@pytest.mark.parametrize(
    "more",
    [{}, {"MODEL.RANKSEG.THRESHOLD": 0.4}, {"MODEL.RANKSEG.USE_GT": True}]
    + [{"MODEL.RANKSEG.SHARE_EMBEDDING": True}, {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False}]
    + [{"MODEL.RANKSEG.FULL_SCORES": True}, {"MODEL.RANKSEG.KEEP_TRUE": True}],
    ids=["plain", "dynamic", "oracle", "shared", "linear", "full", "keep true"],
)
@RANKS
def test_every_kind_of_ranking_works_in_windows_and_scales(options, more):
    model = make_model(options, more)
    assert all(loss.isfinite() for loss in train(model, [sample(), sample(1)]).values())
    model.eval()
    one = sample()
    windows = SlidingWindow(model, (32, 48), (32, 24))
    for way in (model, windows, TestTimeAugmentation(windows, [48, 64], 1000, True)):
        with torch.no_grad():
            result = way([one])[0]
        classes, scores = result["sem_seg_classes"], result["sem_seg_scores"]
        assert scores.shape == (len(classes), 64, 96)
        assert result["sem_seg_labels"].equal(classes[scores.argmax(0)])
        if "MODEL.RANKSEG.USE_GT" in more:
            assert set(classes.tolist()) == set(one["sem_seg"].unique()[:4].tolist())
        assert ("sem_seg" in result) == ("MODEL.RANKSEG.FULL_SCORES" in more)
