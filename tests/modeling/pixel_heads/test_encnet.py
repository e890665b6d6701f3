"""EncNet's head computes what the public reference computes from the same features, and the sums
of its code book are those of a plain computation.
"""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from support import pixel_golden
from support.small import CHANNELS, CLASSES, RANKSEG, make_config, picture
from torch import nn

from rankseg_d2.checkpoints.sources import Table
from rankseg_d2.checkpoints.sources.encnet import ENC_HEAD
from rankseg_d2.modeling.meta_arch import PixelClassifier
from rankseg_d2.modeling.pixel_heads import ContextEncoding, EncHead
from rankseg_d2.modeling.pixel_heads.encnet import Codebook
from rankseg_d2.modeling.results import ResultOptions

# Our names of the reference's losses
LOSSES = {"decode.loss_seg": "loss_sem_seg", "decode.loss_se": "loss_presence"}
HEAD = Table("EncHead", marks=(), rules=ENC_HEAD)


class Stored(nn.Module):
    """A backbone that gives the reference's features."""

    size_divisibility = 0

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, x):
        return {"last": self.features}


@pytest.fixture(scope="module")
def case():
    """The reference's arrays and facts, the model with its weights, and its samples."""
    arrays, facts = pixel_golden.load("encnet_vitt")
    size, classes = facts["hw"], facts["classes"]
    head = EncHead(
        [("last", ShapeSpec(channels=192, stride=16))],
        channels=512,
        encoding=ContextEncoding(192, 512, classes, 64, "BN"),
        dropout=0.0,
        norm="BN",
        num_classes=classes,
        stride=16,
        coarse_width=192,
        class_width=512,
        average_all=True,
        stretch=True,
        presence_weight=0.2,
    )
    features = torch.from_numpy(arrays["feat/3"].values).double()
    mean, std = facts["mean_std"]
    model = PixelClassifier(
        backbone=Stored(features), sem_seg_head=head, result_options=ResultOptions(),
        size_divisibility=1, pixel_mean=mean, pixel_std=std,
    )  # fmt: skip
    pixel_golden.fill(model, HEAD)
    samples = [
        {
            "image": pixel_golden.image(seed, *size),
            "sem_seg": pixel_golden.labels(seed, *size, classes),
        }
        for seed in facts["image_seeds"]
    ]
    return arrays, facts, model.double(), samples


def near(array, x, error=1e-3):
    return array.diff(x)[1] <= error


def test_every_stage_is_the_references(case):
    arrays, _, model, samples = case
    encoding, found = model.eval().sem_seg_head.encoding, {}
    with torch.no_grad():
        outputs = model.decide(model.run_network(model.preprocess(samples)))
        found["bottleneck"] = encoding.conv(model.backbone.features)
        codes = encoding.codebook(encoding.project(found["bottleneck"]).flatten(2).mT)
        found["assign"] = codes
        found["encoding"] = encoding.code_norm(codes[..., None])[..., 0].relu()
        found["gate"] = encoding.gate(found["encoding"].mean(dim=1)).sigmoid()
    found |= {"se": outputs.presence, "logits": outputs.logits[-1]}
    for name, x in found.items():
        assert near(arrays[name], x), (name, arrays[name].diff(x))


def test_results_are_the_references(case):
    arrays, _, model, samples = case
    with torch.no_grad():
        results = model.eval()(samples)
    labels = torch.stack([result["sem_seg_labels"] for result in results])
    assert (labels.numpy() == arrays["argmax"].values).mean() > 0.9999


@pytest.mark.parametrize("batch_statistics", [False, True], ids=["stored", "batch"])
def test_losses_and_gradients_are_the_references(case, batch_statistics):
    arrays, facts, model, samples = case
    part = "loss_bn_batch" if batch_statistics else "loss"
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(batch_statistics)
    model.zero_grad()
    losses = model(samples)
    sum(losses.values()).backward()
    after = HEAD.to_theirs({name: x.clone() for name, x in model.state_dict().items()})
    model.load_state_dict(weights)

    expected = dict(zip(facts["loss_names"], arrays[f"{part}/values"].values, strict=True))
    assert losses.keys() == set(LOSSES.values())
    for name, ours in LOSSES.items():
        assert losses[ours].item() == pytest.approx(expected[name], rel=1e-4), name
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients = HEAD.to_theirs(own)
    norms = arrays["grad_norm" if part == "loss" else f"{part}/grad_norm"].values
    norms = dict(zip(facts["grad_names"], norms, strict=True))
    norms = {name: norm for name, norm in norms.items() if name.startswith("decode_head.")}
    assert gradients.keys() == norms.keys()
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-2), name
    if not batch_statistics:
        for name in ("decode_head.bottleneck.bn.bias", "decode_head.se_layer.bias"):
            assert near(arrays[f"grad/{name}"], gradients[name]), name
        return
    parts = [name.removesuffix("weight") for name in norms if name.endswith("weight")]
    for statistic in ("running_mean", "running_var"):
        names = [f"{part}{statistic}" for part in parts if f"{part}{statistic}" in after]
        assert near(arrays[f"bn_after/{statistic}"], torch.cat([after[x] for x in names]))


# The code book


def test_the_code_book_sums_weighted_differences():
    torch.manual_seed(0)
    codebook = Codebook(5, 3).double()
    x = torch.randn(2, 7, 3, dtype=torch.double)
    expected = torch.zeros(2, 5, 3, dtype=torch.double)
    for image in range(2):
        for feature in x[image]:
            differences = feature - codebook.words  # (5, 3)
            share = (codebook.scale * differences.pow(2).sum(1)).softmax(0)
            expected[image] += share[:, None] * differences
    torch.testing.assert_close(codebook(x), expected)
    assert torch.autograd.gradcheck(codebook, x.requires_grad_())


def test_the_code_book_computes_in_single_precision_under_autocast():
    codebook, x = Codebook(5, 8), torch.randn(2, 40, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = codebook(x), codebook(x.bfloat16())
    assert inside[0].equal(codebook(x))
    assert inside[1].equal(codebook(x.bfloat16().float()))


def test_the_module_has_the_parameters_of_the_papers_row():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in ContextEncoding(768, 768, classes, 64, "BN").parameters())
            for classes in (150, 171, 1284)
        ]
    # Table 1: Segmenter ViT-B has 102.498, 102.514, 103.371 million without it
    without = (102.498, 102.514, 103.371)
    totals = [base + count / 1e6 for base, count in zip(without, counts, strict=True)]
    assert totals == pytest.approx([109.154, 109.186, 110.899], abs=2e-3)


# The model

ENCNET = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "EncHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.ENCODING.CODES": 6,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
}
LATERAL = {"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res3", "res4", "res5"]}
RANKED = RANKSEG | {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False}


def sample(number=0, size=(64, 96)):
    labels = (picture(number, size)[0] * CLASSES // 256).long()
    return {"image": picture(number, size), "sem_seg": labels}


@pytest.mark.parametrize("options", [{}, LATERAL, RANKED], ids=["one level", "lateral", "ranks"])
def test_every_parameter_learns_and_a_batch_gives_what_its_images_give(options):
    torch.manual_seed(0)
    model = build_model(make_config(ENCNET, options)).train()
    samples = [sample(0), sample(1)]
    losses = model(samples)
    assert {"loss_sem_seg", "loss_presence"} <= losses.keys()
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        together, alone = model.eval()(samples), [model([one])[0] for one in samples]
    key = "sem_seg_scores" if options is RANKED else "sem_seg"
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-4)


def test_the_loss_of_presence_is_the_weighted_mean_over_images_and_classes():
    torch.manual_seed(0)
    model = build_model(make_config(ENCNET, {"MODEL.SEM_SEG_HEAD.ENCODING.WEIGHT": 0.5})).train()
    samples = [sample(0), sample(1)]
    samples[1]["sem_seg"][:9] = 255  # ignored, and not a class
    outputs = model.run_network(model.preprocess(samples))
    losses = model.losses(outputs, model.prepare_targets(samples, None))
    expected = []
    for logits, one in zip(outputs.presence, samples, strict=True):
        for label, logit in enumerate(logits):
            probability = logit.sigmoid()
            is_present = (one["sem_seg"] == label).any()
            expected.append(-(probability if is_present else 1 - probability).log())
    torch.testing.assert_close(losses["loss_presence"], 0.5 * torch.stack(expected).mean())


def test_a_head_without_codes_is_an_error_and_elsewhere_no_encoding():
    cfg = make_config(ENCNET, {"MODEL.SEM_SEG_HEAD.ENCODING.CODES": 0})
    shape = {name: ShapeSpec(channels=width, stride=32) for name, width in CHANNELS.items()}
    with pytest.raises(ValueError, match="ENCODING.CODES is 0, .*set it to 32"):
        EncHead(cfg, shape)
    assert ContextEncoding.from_config(cfg, 32, 32) is None
