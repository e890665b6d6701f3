"""SegFormer computes what mmsegmentation, transformers and sithu31296's repository compute."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from support import pixel_golden
from support.paths import ROOT
from support.small import RANKSEG, evaluate, make_config, picture, train, without_gradient
from torch import nn
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources import segformer
from rankseg_d2.config import get_config
from rankseg_d2.engine.checks import build_on_meta
from rankseg_d2.engine.optimizer import parameter_groups
from rankseg_d2.modeling.pixel_heads import SegFormerConvHead, SegFormerHead
from rankseg_d2.report.counting import count_config

OTHERS_EPS = "MODEL.MIT.NORM_EPS=1e-5"
CASES = {
    "segformer_b0": ("b0", segformer.MMSEGMENTATION, ["MODEL.SEM_SEG_HEAD.NAME=SegFormerConvHead"]),
    "sithu_segformer_b0": ("b0", segformer.OFFICIAL, [OTHERS_EPS]),
    "hf_segformer_b2": ("b2", segformer.TRANSFORMERS, [OTHERS_EPS]),
}
PLAIN = ["MODEL.DEVICE=cpu", "MODEL.SEM_SEG_HEAD.NORM=BN", "MODEL.SEM_SEG_HEAD.DROPOUT=0.0"]
PLAIN += ["MODEL.MIT.DROP_PATH_RATE=0.0"]


class Case:
    """A golden case: its arrays and facts, the model with the reference's weights, and samples."""

    def __init__(self, name):
        size, self.table, opts = CASES[name]
        self.arrays, self.facts = pixel_golden.load(name)
        opts = [*PLAIN, *opts, f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={self.facts['classes']}"]
        self.model = build_model(get_config(f"ade20k/semantic/segformer_{size}", opts))
        pixel_golden.fill(self.model, self.table)
        self.model.double().eval()
        self.size = tuple(self.facts["hw"])
        seeds, classes = self.facts["image_seeds"], self.facts["classes"]
        self.samples = [{"image": pixel_golden.image(seed, *self.size)} for seed in seeds]
        if "loss_names" in self.facts:
            for seed, sample in zip(seeds, self.samples, strict=True):
                sample["sem_seg"] = pixel_golden.labels(seed, *self.size, classes)

    def outputs(self):
        """The features by name, and the model's outputs with logits."""
        images = self.model.preprocess(self.samples).tensor
        features = self.model.backbone(images)
        return features, self.model.decide(self.model.sem_seg_head(features))

    def check_gradients(self):
        """The parameters' gradients are the reference's: all norms, and the stored samples."""
        own = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        theirs = self.table.to_theirs(own)
        norms = [theirs[name].norm().item() for name in self.facts["grad_names"]]
        expected = self.arrays["grad_norm"].values
        noise = np.array(["key.bias" in name for name in self.facts["grad_names"]])
        assert norms == pytest.approx(expected, rel=1e-2, abs=noise.any() * 1e-6)
        sampled = [name for name in self.arrays if name.startswith("grad/")]
        assert len(sampled) >= 4
        for name in sampled:
            assert near(self.arrays[name], theirs[name.removeprefix("grad/")], 1e-2), name


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def mmseg():
    return Case("segformer_b0")


def near(array, x, error=1e-3):
    return array.diff(x)[1] <= error


def test_every_stage_is_the_references(case):
    assert sum(x.numel() for x in case.model.parameters()) == case.facts["parameters"]
    with torch.no_grad():
        features, outputs = case.outputs()
    logits = outputs.logits[-1]
    found = {f"feat/{i}": x for i, x in enumerate(features.values())}
    enlarged = F.interpolate(logits, case.size, mode="bilinear", align_corners=False)
    found |= {"fusion": outputs.pixels, "fuse": outputs.pixels, "logits": logits}
    found["out"] = enlarged if case.table is segformer.OFFICIAL else logits
    compared = [name for name in found if name in case.arrays]
    for name in compared:
        assert near(case.arrays[name], found[name]), name
    assert len(compared) == (1 if case.table is segformer.TRANSFORMERS else 5)


def test_results_are_the_logits_enlarged_to_the_image(mmseg):
    with torch.no_grad():
        results = mmseg.model(mmseg.samples)
        _, outputs = mmseg.outputs()
    for result, logits in zip(results, outputs.logits[-1], strict=True):
        expected = F.interpolate(logits[None], mmseg.size, mode="bilinear")[0]
        torch.testing.assert_close(result["sem_seg"], expected.to(result["sem_seg"]))
        assert result["sem_seg_labels"].equal(expected.argmax(0))


def test_losses_and_gradients_with_stored_statistics_are_the_references(mmseg):
    _, outputs = mmseg.outputs()
    losses = mmseg.model.losses(outputs, mmseg.model.prepare_targets(mmseg.samples, None))
    assert list(losses) == ["loss_sem_seg"]
    expected = mmseg.arrays["loss/values"].values[0]
    assert losses["loss_sem_seg"].item() == pytest.approx(expected, rel=1e-3)
    mmseg.model.zero_grad()
    losses["loss_sem_seg"].backward()
    mmseg.check_gradients()


def test_losses_with_batch_statistics_are_the_references(mmseg):
    weights = {name: x.clone() for name, x in mmseg.model.state_dict().items()}
    losses = mmseg.model.train()(mmseg.samples)
    mmseg.model.load_state_dict(weights)
    mmseg.model.eval()
    expected = mmseg.arrays["loss_bn_batch/values"].values[0]
    assert losses["loss_sem_seg"].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["sithu_segformer_b0", "hf_segformer_b2"])
def test_gradients_of_a_projection_are_the_references(name):
    """Of the sum of the outputs, each times a random number."""
    case = Case(name)
    _, outputs = case.outputs()
    out = outputs.logits[-1]
    if case.table is segformer.OFFICIAL:
        out = F.interpolate(out, case.size, mode="bilinear", align_corners=False)
    noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    value = (out * noise).sum() / out.numel() ** 0.5
    assert value.item() == pytest.approx(case.arrays["proj/value"].values[0], rel=1e-3)
    value.backward()
    case.check_gradients()


# Properties of both heads

SMALL = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.BACKBONE.NAME": "MixTransformer",
    "MODEL.MIT.EMBED_DIMS": [8, 8, 16, 16],
    "MODEL.MIT.DEPTHS": [1, 1, 1, 1],
    "MODEL.MIT.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.MIT.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "SegFormerHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.AVERAGE_ALL": True,
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
}
PRODUCTS = RANKSEG | {
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False,
    "MODEL.RANKSEG.HEAD": "separable",
    "MODEL.RANKSEG.SHARE_EMBEDDING": True,
    "MODEL.RANKSEG.POOL": 2,
}
ORACLE = PRODUCTS | {"MODEL.RANKSEG.USE_GT": True}
SHAPES = {
    f"res{i + 2}": ShapeSpec(channels=channels, stride=4 * 2**i)
    for i, channels in enumerate((8, 8, 16, 16))
}
OPTIONS = {"in_features": list(SHAPES), "width": 12, "norm": "BN", "num_classes": 5}
HEADS = pytest.mark.parametrize("head", [SegFormerHead, SegFormerConvHead])


def small(*options):
    torch.manual_seed(0)
    model = build_model(make_config(SMALL, *options))
    for name, parameter in model.named_parameters():  # away from the initial zeros
        if name.endswith("bias") or "predictor" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def sample(number=0, size=(64, 96)):
    labels = (picture(number, size)[0] * 7 // 256).long()
    labels[:5] = 255
    return {"image": picture(number, size), "sem_seg": labels}


@HEADS
def test_the_fusion_is_that_of_the_enlarged_and_concatenated_levels(head):
    torch.manual_seed(0)
    head = head(SHAPES, **OPTIONS).double().eval()
    for name, x in head.state_dict().items():
        if x.is_floating_point() and "running_var" not in name:
            x.normal_()
    sizes = (11, 7), (6, 4), (3, 2), (2, 1)
    maps = [
        torch.randn(2, level.channels, *size, dtype=torch.float64)
        for level, size in zip(SHAPES.values(), sizes, strict=True)
    ]
    if isinstance(head, SegFormerConvHead):
        levels = [project(x) for project, x in zip(head.levels, maps, strict=True)]
        assert all((x >= 0).all() for x in levels)
    else:
        layers = zip(head.levels, maps, strict=True)
        levels = [project(x.movedim(1, -1)).movedim(-1, 1) for project, x in layers][::-1]
    levels = [F.interpolate(x, sizes[0], mode="bilinear", align_corners=False) for x in levels]
    expected = head.fuse(torch.cat(levels, 1))
    torch.testing.assert_close(head.fused(maps), expected)
    assert expected.shape == (2, 12, 11, 7) and expected.any()


@HEADS
def test_every_parameter_gets_a_gradient_and_dropout_acts_in_training_only(head):
    name = {"MODEL.SEM_SEG_HEAD.NAME": head.__name__}
    for options in ({}, PRODUCTS):
        model = small(name, options)
        losses = train(model, [sample(0), sample(1)])
        assert set(losses) == {"loss_sem_seg", *(["loss_ml"] if options else [])}
        assert without_gradient(model) == []
    model = small(name, {"MODEL.SEM_SEG_HEAD.DROPOUT": 0.5})
    maps = model.backbone(torch.randn(2, 3, 64, 96))
    zero = (model.train().sem_seg_head(maps).pixels == 0).flatten(2).all(-1).float().mean()
    assert 0.2 < zero < 0.9
    assert model.eval().sem_seg_head(maps).pixels.equal(model.sem_seg_head(maps).pixels)


@pytest.mark.parametrize("options", [{}, PRODUCTS, ORACLE], ids=["plain", "rankseg", "oracle"])
def test_a_batch_is_as_its_images_alone(options):
    model = small(options)
    samples = [sample(i, (50, 73)) for i in range(3)]
    together = evaluate(model, samples)
    for one, result in zip(samples, together, strict=True):
        alone = evaluate(model, [one])[0]
        assert result["sem_seg_labels"].shape == (50, 73)
        torch.testing.assert_close(result, alone, rtol=1e-4, atol=1e-4)


def test_rankseg_classifies_by_products_with_the_kept_classes():
    model = small(PRODUCTS).eval()
    images = model.preprocess([sample(0), sample(1)]).tensor
    with torch.no_grad():
        outputs = model.decide(model.network(images))
        coarse = model.backbone(images)["res5"]
        weight, bias = model.sem_seg_head.class_embedding(), model.sem_seg_head.predictor.bias
        scores = model.ml_head(F.adaptive_avg_pool2d(coarse, 2).flatten(2).mT, weight)
        kept = scores.sort(dim=1, descending=True).indices[:, :4]
        assert outputs.ranking.index.equal(kept)
        for i, ids in enumerate(kept):
            logits = torch.einsum("dhw,kd->hwk", outputs.pixels[i], weight[ids]) + bias[ids]
            norm = model.ml_norm
            logits = F.layer_norm(logits, (4,), norm.weight, norm.bias)
            torch.testing.assert_close(outputs.logits[-1][i].permute(1, 2, 0), logits)


def test_the_oracle_ranks_the_classes_that_are_present():
    one = sample(0)
    ranking = evaluate(small(ORACLE), [one])[0]["ranking"]["classes"]
    present = one["sem_seg"].unique().tolist()[:-1]  # 255 last
    assert ranking.tolist() == sorted(present)[:4]


def test_autocast_is_near_and_trains():
    model = small(PRODUCTS)
    exact = evaluate(model, [sample(0)])[0]["ranking"]["scores"]
    with torch.autocast("cpu", torch.bfloat16):
        result = evaluate(model, [sample(0)])[0]["ranking"]["scores"]
        losses = train(model, [sample(0), sample(1)])
    assert (result - exact).abs().max() < 0.1
    assert all(loss.isfinite() for loss in losses.values()) and not without_gradient(model)


@pytest.mark.parametrize(
    "levels, message",
    [
        (["res2", "res6"], r"IN_FEATURES has res6, but the backbone gives res2, res3, res4, res5"),
        (["res3", "res2"], r"must go from fine to coarse, such as res2.*; got res3, res2"),
    ],
)
def test_bad_levels_are_named(levels, message):
    with pytest.raises(ValueError, match=message):
        SegFormerHead(SHAPES, **OPTIONS | {"in_features": levels})


def test_fewer_levels_may_be_fused():
    head = SegFormerHead(SHAPES, **OPTIONS | {"in_features": ["res3", "res5"]}).eval()
    maps = {"res3": torch.randn(1, 8, 8, 8), "res5": torch.randn(1, 16, 2, 2)}
    outputs = head(maps)
    assert outputs.pixels.shape == (1, 12, 8, 8) and outputs.coarse is maps["res5"]
    assert (head.stride, head.coarse_width, head.class_width) == (8, 16, 12)


# Parameters and multiply-adds, of the paper's table and as counted by fvcore for the official order

TABLE = {
    "b0": (3.75, 8.63, 512),
    "b1": (13.72, 16.16, 512),
    "b2": (27.46, 62.77, 512),
    "b3": (47.34, 79.44, 512),
    "b4": (64.11, 96.10, 512),
    "b5": (84.71, 184.03, 640),
}
MMSEG_PARAMETERS = {"b0": 3.75, "b1": 13.72, "b2": 24.76, "b3": 44.64, "b4": 61.41, "b5": 82.01}


def saved_by_fusing_early(width, channels, pixels):
    """Multiply-adds of fusing the concatenated levels, less those of multiplying the weights."""
    return 4 * width**2 * pixels // 16 - width**2 * (sum(channels) + 4)


@pytest.mark.parametrize(
    "size", ["b0", "b1", *(pytest.param(f"b{i}", marks=pytest.mark.slow) for i in range(2, 6))]
)
def test_parameters_and_flops_are_those_of_the_table(size):
    parameters, flops, side = TABLE[size]
    cfg = get_config(f"ade20k/semantic/segformer_{size}", ["MODEL.DEVICE=cpu"])
    whole = count_config(cfg, (side, side))[0]
    width, channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM, cfg.MODEL.MIT.EMBED_DIMS
    saved = saved_by_fusing_early(width, channels, side**2)
    enlarging = 4 * 150 * side**2  # of the logits, which fvcore counts
    assert whole.parameters / 1e6 == pytest.approx(parameters, rel=0.01)
    assert (whole.flops + saved + enlarging) / 1e9 == pytest.approx(flops, rel=0.03)


@pytest.mark.parametrize("size, published, error", [("b0", 126, 0.045), ("b1", 244, 0.025)])
def test_flops_on_cityscapes_are_those_of_the_table_and_of_the_zoo(size, published, error):
    cfg = get_config(f"cityscapes/semantic/segformer_{size}", ["MODEL.DEVICE=cpu"])
    early = count_config(cfg, (1024, 2048))[0].flops
    width, channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM, cfg.MODEL.MIT.EMBED_DIMS
    late = early + saved_by_fusing_early(width, channels, 1024 * 2048)
    row = f"| {size.upper()} | 1024 x 2048 | {early / 1e9:.1f} | {late / 1e9:.1f} | {published} |"
    assert row in (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
    assert late / 1e9 == pytest.approx(published, rel=error)


@pytest.mark.parametrize("size", MMSEG_PARAMETERS)
def test_mmsegmentations_head_has_as_many_parameters_as_there(size, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: [ade20k/semantic/segformer_{size}, parts/segformer_mmseg]\n")
    model = build_on_meta(get_config(path, ["MODEL.DEVICE=cpu"]))
    found = sum(x.numel() for x in model.parameters()) / 1e6
    assert found == pytest.approx(MMSEG_PARAMETERS[size], rel=0.002)


def test_the_head_learns_ten_times_as_fast_as_the_backbone_and_norms_do_not_decay():
    cfg = get_config("ade20k/semantic/segformer_b0_rankseg", PLAIN)
    model = build_model(cfg)
    groups = parameter_groups(cfg, model)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx({"backbone": 6e-5, "rest": 6e-4, "ml_head": 6e-5})
    undecayed = {id(x) for group in groups if not group["weight_decay"] for x in group["params"]}
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)]
    assert len(norms) > 20
    assert all(id(x) in undecayed for norm in norms for x in norm.parameters())
    assert id(model.backbone.stages[0].blocks[0].mlp.fc1.weight) not in undecayed
