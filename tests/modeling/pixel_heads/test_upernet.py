"""UPerNet, alone and with RankSeg, with Swin and BEiT, computes what the references compute.

Weights and images follow from rules (`pixel_golden.py`). Dropout and drop path are off, and all is
in double precision.
"""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from support import pixel_golden
from support.small import (
    CHANNELS,
    CLASSES,
    RANKSEG,
    make_config,
    picture,
    train,
    without_gradient,
)
from torch import nn
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources import upernet
from rankseg_d2.config import get_config
from rankseg_d2.modeling.passes import SlidingWindow, TestTimeAugmentation
from rankseg_d2.modeling.pixel_heads import UPerNetHead

PLAIN = ["MODEL.DEVICE=cpu", "MODEL.SEM_SEG_HEAD.NORM=BN", "MODEL.SEM_SEG_HEAD.DROPOUT=0.0"]
PLAIN += ["MODEL.SWIN.DROP_PATH_RATE=0.0", "MODEL.BEIT.DROP_PATH_RATE=0.0", "MODEL.BEIT.NORM=BN"]
SIZE = "MODEL.BEIT.IMG_SIZE=[64, 96]"
CASES = {  # config, table, opts
    "upernet_swint": ("upernet_swin_t", upernet.UPERNET_SWIN, []),
    "upernet_rankseg_swint": ("upernet_swin_t_rankseg", upernet.UPERNET_SWIN_RANKSEG, []),
    "upernet_beitb": (
        "upernet_beit_b",
        upernet.UPERNET_BEIT,
        [SIZE, "MODEL.BEIT.OUT_BLOCKS=[3, 6, 9, 12]"],
    ),
    "mmseg_upernet_beitb": ("upernet_beit_b", upernet.UPERNET_MMSEG_BEIT, [SIZE]),
}
QUICK = "upernet_rankseg_swint"
PARAMS = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
# Our names of the references' losses
LOSSES = {
    "decode.loss_seg": "loss_sem_seg",
    "decode.loss_ce": "loss_sem_seg",
    "decode.loss_img": "loss_ml",
    "aux.loss_seg": "loss_aux",
    "aux.loss_ce": "loss_aux",
}


class Case:
    """A golden case: its arrays and facts, the model with the reference's weights, and samples."""

    def __init__(self, name: str):
        config, self.table, opts = CASES[name]
        self.arrays, self.facts = pixel_golden.load(name)
        self.model = build_model(get_config(f"ade20k/semantic/{config}", [*PLAIN, *opts]))
        pixel_golden.fill(self.model, self.table)
        self.model.double()
        pixel_golden.without_dropout(self.model)
        self.samples = pixel_golden.samples(self.facts)

    def train(self, batch_statistics: bool) -> dict:
        for module in self.model.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(batch_statistics)
        self.model.zero_grad()
        return self.model(self.samples)

    def check_losses(self, losses: dict, part: str) -> None:
        values = zip(self.facts["loss_names"], self.arrays[f"{part}/values"].values, strict=True)
        expected = {LOSSES[name]: value for name, value in values if name in LOSSES}
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value, rel=1e-3), name


@pytest.fixture(scope="module", params=PARAMS)
def case(request):
    return Case(request.param)


def near(array, x, error=1e-3):
    return array.diff(x)[1] <= error


def test_every_stage_and_result_is_the_references(case):
    model, arrays = case.model.eval(), case.arrays
    with torch.no_grad():
        images = model.preprocess(case.samples).tensor
        features = list(model.backbone(images).values())
        outputs = model.decide(model.network(images))
        results = model(case.samples)
    kind = "neck" if "neck/0" in arrays else "feat"
    found = {f"{kind}/{i}": x for i, x in enumerate(features)} | {"fpn_out": outputs.pixels}
    if model.ranks:
        assert outputs.ranking.index.tolist() == arrays["index"].values.tolist()
        found |= {"img_pred": outputs.scores, "masks": outputs.logits[-1]}
    else:
        found["logits"] = outputs.logits[-1]
    for name, x in found.items():
        assert near(arrays[name], x), name
    labels = torch.stack([result["sem_seg_labels"] for result in results])
    assert (labels.numpy() == arrays["argmax"].values).mean() > 0.9999


@pytest.mark.slow
def test_losses_and_gradients_are_the_references(case):
    losses = case.train(batch_statistics=False)
    case.check_losses(losses, "loss")
    sum(losses.values()).backward()
    own = {name: parameter.grad for name, parameter in case.model.named_parameters()}
    theirs = case.table.to_theirs(own)
    assert set(theirs) == set(case.facts["grad_names"])
    norms = [theirs[name].norm().item() for name in case.facts["grad_names"]]
    assert norms == pytest.approx(case.arrays["grad_norm"].values, rel=1e-2)
    sampled = [name for name in case.arrays if name.startswith("grad/")]
    assert len(sampled) >= 4
    for name in sampled:
        assert near(case.arrays[name], theirs[name.removeprefix("grad/")], 1e-2), name


@pytest.mark.slow
def test_losses_with_batch_statistics_are_the_references(case):
    weights = {name: x.clone() for name, x in case.model.state_dict().items()}
    losses = case.train(batch_statistics=True)
    after = case.table.to_theirs({name: x.clone() for name, x in case.model.state_dict().items()})
    case.model.load_state_dict(weights)
    case.check_losses(losses, "loss_bn_batch")
    if "bn_after/running_mean" in case.arrays:
        norms = [name.removesuffix("bias") for name in case.facts["grad_names"]]
        means = [after[f"{name}running_mean"] for name in norms if f"{name}running_mean" in after]
        assert near(case.arrays["bn_after/running_mean"], torch.cat(means))


# Properties

SMALL = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 8,
    "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.SWIN.WINDOW_SIZE": 4,
    "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.AVERAGE_ALL": True,
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
    "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE": "res4",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CHANNELS": 12,
}
PRODUCTS = RANKSEG | {
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False,
    "MODEL.RANKSEG.HEAD": "separable",
    "MODEL.RANKSEG.SHARE_EMBEDDING": True,
}
OWN = PRODUCTS | {"MODEL.RANKSEG.SHARE_EMBEDDING": False, "MODEL.RANKSEG.THRESHOLD": 0.3}
ORACLE = PRODUCTS | {"MODEL.RANKSEG.USE_GT": True}
KINDS = pytest.mark.parametrize(
    "options", [{}, PRODUCTS, OWN, ORACLE], ids=["baseline", "rankseg", "own tokens", "oracle"]
)


def small(*options):
    torch.manual_seed(0)
    model = build_model(make_config(SMALL, *options)).double()
    for name, parameter in model.named_parameters():  # away from the initial zeros
        if name.endswith("bias") or "predictor" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def sample(number=0, size=(64, 96)):
    labels = (picture(number, size)[0] * CLASSES // 256).long()
    labels[:5] = 255
    return {"image": picture(number, size), "sem_seg": labels}


@KINDS
@pytest.mark.parametrize("size", [(64, 96), (37, 75), (4, 5)])
def test_a_batch_equals_its_images_one_by_one_at_any_size(options, size):
    model = small(options).eval()
    samples = [sample(number, size) for number in range(3)]
    with torch.no_grad():
        together = model(samples)
        alone = [model([one])[0] for one in samples]
    for a, b in zip(together, alone, strict=True):
        assert a["sem_seg_labels"].shape == size
        assert a["sem_seg_labels"].equal(b["sem_seg_labels"])
        if "ranking" in a:
            assert a["ranking"]["classes"].equal(b["ranking"]["classes"])


@KINDS
def test_every_parameter_has_a_gradient_in_training(options):
    model = small(options)
    losses = train(model, [sample(0), sample(1)])
    assert {"loss_sem_seg", "loss_aux"} <= losses.keys()
    assert without_gradient(model) == []


def test_images_are_not_padded_since_the_model_takes_any_size():
    clips = small().preprocess([sample(0, (37, 75))])
    assert clips.tensor.shape[-2:] == (37, 75)


def test_results_are_the_whole_map_enlarged_to_the_image():
    model = small().eval()
    one = sample(0, (37, 75))
    with torch.no_grad():
        logits = model.decide(model.run_network(model.preprocess([one]))).logits[-1]
        result = model([one])[0]
    assert logits.shape[-2:] == (10, 19)
    expected = F.interpolate(logits, (37, 75), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(result["sem_seg"].double(), expected, rtol=1e-5, atol=1e-5)


def test_with_all_classes_ranked_rankseg_orders_the_baselines_logits():
    ranked = small(PRODUCTS | {"MODEL.RANKSEG.TOPK": CLASSES}).eval()
    plain = small().eval()
    plain.load_state_dict(ranked.state_dict(), strict=False)
    clips = plain.preprocess([sample(0), sample(1)])
    with torch.no_grad():
        expected = plain.decide(plain.run_network(clips)).logits[-1]
        outputs = ranked.decide(ranked.run_network(clips))
    index = outputs.ranking.index[:, :, None, None].expand_as(expected)
    normed = ranked.ml_norm(expected.gather(1, index).movedim(1, -1).flatten(1, 2), outputs.ranking)
    torch.testing.assert_close(outputs.logits[-1].movedim(1, -1).flatten(1, 2), normed)


@KINDS
def test_windows_and_augmentations_give_results_of_the_images_size(options):
    model = small(options).float().eval()
    one = sample(0)
    windows = SlidingWindow(model, (32, 48), (32, 24))
    for way in (windows, TestTimeAugmentation(windows, [48, 64], 1000, True)):
        with torch.no_grad():
            assert way([one])[0]["sem_seg_labels"].shape == (64, 96)
    with torch.no_grad():
        whole = SlidingWindow(model, (64, 96), (64, 96))([one])[0]
        assert whole["sem_seg_labels"].equal(model([one])[0]["sem_seg_labels"])


def test_autocast_changes_little():
    model = small(PRODUCTS).float().eval()
    clips = model.preprocess([sample(0)])
    with torch.no_grad():
        expected = model.run_network(clips)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.run_network(clips)
    assert (found.pixels.float() - expected.pixels).std() < 0.05 * expected.pixels.std()
    assert (found.scores - expected.scores).std() < 0.1 * expected.scores.std()


@pytest.mark.parametrize("levels", [["res5"], ["res3", "res5"]])
def test_a_head_takes_any_number_of_levels(levels):
    shapes = [(name, ShapeSpec(channels=CHANNELS[name], stride=8)) for name in levels]
    options = {"channels": 6, "norm": "BN", "dropout": 0.0, "num_classes": 5, "stride": 8}
    head = UPerNetHead(shapes, coarse_width=32, class_width=6, **options).eval()
    features = {name: torch.randn(2, CHANNELS[name], 3, 4) for name in levels}
    assert head(features).pixels.shape == (2, 6, 3, 4)


def test_one_image_in_a_training_step_is_an_error_that_names_the_batch_size():
    with pytest.raises(ValueError, match="raise SOLVER.IMS_PER_BATCH to 2 or more"):
        small().train()([sample()])
    assert small({"MODEL.SEM_SEG_HEAD.NORM": ""}).train()([sample()])


def test_a_level_that_the_backbone_lacks_is_an_error():
    with pytest.raises(KeyError, match=r"IN_FEATURES: 'res6' is not known; .* res2, res3"):
        small({"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5", "res6"]})


# Recipes


@pytest.mark.parametrize(
    ("name", "rate", "decay", "updates", "kappa", "weight", "shared"),
    [
        ("ade20k/semantic/upernet_swin_t", 6e-5, 0.01, 160_000, 50, 10, True),
        ("ade20k/semantic/upernet_swin_b", 6e-5, 0.01, 160_000, 50, 10, True),
        ("ade20k/semantic/upernet_cswin_t", 6e-5, 0.01, 160_000, 50, 10, True),
        ("ade20k/semantic/upernet_volo_d5", 6e-5, 0.01, 160_000, 50, 10, True),
        ("ade20k/semantic/upernet_beit_b", 3e-5, 0.05, 160_000, 50, 5, False),
        ("ade20k/semantic/upernet_beit_l", 2e-5, 0.05, 80_000, 50, 5, False),
        ("coco_stuff/semantic/upernet_swin_b", 6e-5, 0.01, 40_000, 50, 10, True),
        ("coco_lvis/semantic/upernet_swin_b", 6e-5, 0.01, 160_000, 100, 10, True),
    ],
)
def test_configs_have_the_published_recipes(name, rate, decay, updates, kappa, weight, shared):
    cfg, ranked = get_config(name), get_config(f"{name}_rankseg")
    solver = cfg.SOLVER
    assert (rate, decay, updates) == (solver.BASE_LR, solver.WEIGHT_DECAY, solver.MAX_ITER)
    assert (solver.OPTIMIZER, solver.IMS_PER_BATCH, solver.POLY_LR_POWER) == ("ADAMW", 16, 1.0)
    assert (solver.WARMUP_ITERS, solver.WARMUP_FACTOR) == (1500, 1e-6)
    options = ranked.MODEL.RANKSEG
    assert (kappa, weight, shared) == (options.TOPK, options.LOSS_WEIGHT, options.SHARE_EMBEDDING)
    assert (512 if shared else 1024) == options.HIDDEN_DIM and options.HEAD == "separable"
    assert not ranked.MODEL.SEM_SEG_HEAD.USE_LAYERNORM
    assert cfg.TEST.SLIDING_WINDOW.ENABLED is ("beit" in name)


def test_the_remedy_is_a_base_after_a_config(tmp_path):
    path = tmp_path / "remedy.yaml"
    path.write_text("_BASE_: [ade20k/semantic/upernet_swin_b_rankseg, parts/rankseg_remedy]")
    cfg = get_config(path)
    assert (cfg.MODEL.RANKSEG.LOSS_WEIGHT, cfg.SOLVER.MLHEAD_MULTIPLIER) == (5, 0.1)
    assert (cfg.MODEL.RANKSEG.FLAG, cfg.MODEL.RANKSEG.TOPK) == (True, 50)
