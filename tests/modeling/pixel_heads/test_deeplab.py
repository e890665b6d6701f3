"""DeepLabV3, alone and with RankSeg, computes what the public reference computes.

Weights and images follow from rules (`pixel_golden.py`). Dropout is off, and all is in double
precision: in single precision a ResNet's gradients depend on the number of threads.
"""

import pytest
import torch
from detectron2.modeling import build_model
from support import pixel_golden
from torch import nn

from rankseg_d2.checkpoints.sources.deeplab import DEEPLAB, DEEPLAB_RANKSEG
from rankseg_d2.config import get_config

KAPPA = 50
CASES = {"deeplabv3_r50": ("", DEEPLAB), "deeplabv3_rankseg_r50": ("_rankseg", DEEPLAB_RANKSEG)}
R50 = ["MODEL.DEVICE=cpu", "MODEL.RESNETS.DEPTH=50", "MODEL.RESNETS.NORM=BN"]
R50 += ["MODEL.SEM_SEG_HEAD.NORM=BN", "MODEL.SEM_SEG_HEAD.DROPOUT=0.0"]
# Our names of the reference's losses
LOSSES = {
    "decode.loss_seg": "loss_sem_seg",
    "decode.loss_img": "loss_ml",
    "aux.loss_seg": "loss_aux",
}


class Case:
    """A golden case: its arrays and facts, the model with the reference's weights, and samples."""

    def __init__(self, name: str):
        suffix, self.table = CASES[name]
        self.arrays, self.facts = pixel_golden.load(name)
        self.ranks = bool(suffix)
        self.model = build_model(get_config(f"ade20k/semantic/deeplab_r101c{suffix}", R50))
        pixel_golden.fill(self.model, self.table)
        self.model.double()
        pixel_golden.without_dropout(self.model)
        self.samples = pixel_golden.samples(self.facts)

    def theirs(self, weights: dict) -> dict:
        """Weights, or their gradients, under the reference's names."""
        return self.table.to_theirs(weights)

    def train(self, batch_statistics: bool) -> tuple[dict, dict]:
        """The losses, and the gradients of their sum under the reference's names."""
        for module in self.model.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(batch_statistics)
        self.model.zero_grad()
        losses = self.model(self.samples)
        sum(losses.values()).backward()
        own = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        return losses, self.theirs(own)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def near(array, x, error=1e-3):
    return array.diff(x)[1] <= error


def test_every_stage_is_the_references(case):
    model, arrays, found = case.model.eval(), case.arrays, {}

    def keep(module, name):
        return module.register_forward_hook(lambda *args: found.update({name: args[-1]}))

    pyramid = model.sem_seg_head.pyramid
    hooks = [keep(branch, f"aspp_branch/{i}") for i, branch in enumerate(pyramid.branches)]
    hooks += [
        keep(pyramid.pool, "aspp_pool"),
        keep(model.sem_seg_head.bottleneck, "aspp_bottleneck"),
    ]
    with torch.no_grad():
        clips = model.preprocess(case.samples)
        found |= {f"feat/{i}": x for i, x in enumerate(model.backbone(clips.tensor).values())}
        outputs = model.decide(model.run_network(clips))
    for hook in hooks:
        hook.remove()
    found["masks" if case.ranks else "logits"] = outputs.logits[-1]
    if case.ranks:
        found["img_pred"] = outputs.scores
        assert outputs.ranking.index.tolist() == arrays["index"].values.tolist()
    for name, x in found.items():
        assert near(arrays[name], x), name
    assert len(found) == 11 + case.ranks


def test_results_are_the_references(case):
    with torch.no_grad():
        results = case.model.eval()(case.samples)
    labels = torch.stack([result["sem_seg_labels"] for result in results])
    assert (labels.numpy() == case.arrays["argmax"].values).mean() > 0.9999
    if not case.ranks:
        maps = torch.stack([result["sem_seg"] for result in results])
        assert maps.argmax(1).equal(labels)


@pytest.mark.slow
@pytest.mark.parametrize("batch_statistics", [False, True], ids=["stored", "batch"])
def test_losses_and_gradients_are_the_references(case, batch_statistics):
    part = "loss_bn_batch" if batch_statistics else "loss"
    weights = {name: x.clone() for name, x in case.model.state_dict().items()}
    losses, gradients = case.train(batch_statistics)
    after = case.theirs({name: x.clone() for name, x in case.model.state_dict().items()})
    case.model.load_state_dict(weights)
    expected = dict(
        zip(case.facts["loss_names"], case.arrays[f"{part}/values"].values, strict=True)
    )
    expected = {LOSSES[name]: value for name, value in expected.items() if name in LOSSES}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-3), name
    names = case.facts["grad_names"]
    assert set(names) == {name for name, x in gradients.items() if x is not None}
    norms = case.arrays.get("grad_norm" if part == "loss" else f"{part}/grad_norm")
    if norms is not None:
        # With batch statistics the reference differs from itself: the norm of two pooled maps.
        error = 2e-2 if batch_statistics else 1e-2
        for name, norm in zip(names, norms.values, strict=True):
            assert gradients[name].norm().item() == pytest.approx(norm, rel=error), name
    if not batch_statistics:
        sampled = [name for name in case.arrays if name.startswith("grad/")]
        assert len(sampled) > 10
        for name in sampled:
            assert near(case.arrays[name], gradients[name.removeprefix("grad/")], 5e-2), name
    elif "bn_after/running_mean" in case.arrays:
        norms = [
            name.removesuffix(".bias") for name in names if f"{name[:-4]}running_mean" in after
        ]
        for statistic in ("running_mean", "running_var"):
            values = torch.cat([after[f"{norm}.{statistic}"] for norm in norms])
            assert near(case.arrays[f"bn_after/{statistic}"], values), statistic


# Properties, with a small model

SMALL = ["MODEL.DEVICE=cpu", "MODEL.RESNETS.DEPTH=50", "MODEL.RESNETS.WIDTH_PER_GROUP=4"]
SMALL += ["MODEL.RESNETS.RES2_OUT_CHANNELS=16", "MODEL.RESNETS.STEM_OUT_CHANNELS=8"]
SMALL += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES=9", "MODEL.SEM_SEG_HEAD.CONVS_DIM=16"]
RANKED = ["MODEL.RANKSEG.TOPK=4", "MODEL.RANKSEG.HIDDEN_DIM=64", "MODEL.RANKSEG.POOL=3"]
KINDS = {"": [], "_rankseg": RANKED, "_rankseg_gt": RANKED}


def small(suffix="", *opts):
    torch.manual_seed(0)
    config = f"ade20k/semantic/deeplab_r101c{suffix}"
    model = build_model(get_config(config, [*SMALL, *KINDS[suffix], *opts]))
    for name, weight in model.state_dict().items():
        if "predictor" in name:  # so that not all logits are nearly equal
            weight.copy_(torch.randn(weight.shape))
    return model


def sample(number=0, size=(40, 57)):
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(256, (3, *size), generator=generator).float()
    labels = torch.randint(9, (5, 6), generator=generator)[None, None].float()
    return {"image": image, "sem_seg": nn.functional.interpolate(labels, size)[0, 0].long()}


def maps(result):
    return result["sem_seg_scores" if "ranking" in result else "sem_seg"]


@pytest.mark.parametrize("suffix", KINDS)
def test_every_parameter_learns(suffix):
    model = small(suffix).train()
    losses = model([sample(0), sample(1, (33, 64))])
    ranked = {"loss_ml"} if suffix == "_rankseg" else set()
    assert losses.keys() == {"loss_sem_seg", "loss_aux"} | ranked
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("suffix", KINDS)
def test_a_batch_gives_what_its_images_alone_give(suffix):
    model = small(suffix).eval().double()
    samples = [sample(0), sample(1)]
    with torch.no_grad():
        together, alone = model(samples), [model([one])[0] for one in samples]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(maps(one), maps(other))
        assert one["sem_seg_labels"].equal(other["sem_seg_labels"])


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (17, 41), (64, 33)])
def test_images_of_any_size_are_segmented_at_their_size(size):
    with torch.no_grad():
        (result,) = small("_rankseg").eval()([sample(0, size) | {"height": 30, "width": 20}])
    assert result["sem_seg_labels"].shape == (30, 20)
    assert len(result["sem_seg_classes"]) == 4


def test_the_classifier_reads_products_with_the_ranked_embeddings():
    model = small("_rankseg").eval()
    with torch.no_grad():
        outputs = model.decide(model.run_network(model.preprocess([sample(0), sample(1)])))
        head, index = model.sem_seg_head, outputs.ranking.index  # (2, 4)
        every = head.predictor(outputs.pixels)  # (2, 9, h, w)
        chosen = torch.stack([every[i, index[i]] for i in range(2)])  # (2, 4, h, w)
        expected = model.ml_norm(chosen.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(outputs.logits[-1], expected)


def test_the_pyramid_sees_the_mean_of_the_map_first():
    pyramid = small().eval().sem_seg_head.pyramid
    x = torch.randn(2, 128, 5, 7)
    with torch.no_grad():
        found = pyramid(x)[:, :16]
        expected = pyramid.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, 5, 7)
    torch.testing.assert_close(found, expected)


def test_dropout_acts_in_training_alone():
    head = small("", "MODEL.SEM_SEG_HEAD.DROPOUT=0.5").sem_seg_head
    features = {"res5": torch.randn(4, 128, 5, 7)}
    dropped = head.train()(features).pixels.flatten(2).abs().sum(2) == 0
    whole = head.eval()(features).pixels.flatten(2).abs().sum(2) == 0
    assert dropped.float().mean() > 0.3 > whole.float().mean()


def test_autocast_gives_nearly_the_same_maps():
    model = small("_rankseg").eval()
    with torch.no_grad():
        exact = model.run_network(model.preprocess([sample()]))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model.decide(model.run_network(model.preprocess([sample()])))
    assert outputs.logits[-1].dtype == torch.float32  # after the norm over ranks
    torch.testing.assert_close(outputs.scores, exact.scores, rtol=0.1, atol=0.1)


def test_a_level_that_the_backbone_lacks_is_named():
    with pytest.raises(KeyError, match="IN_FEATURES: .res6. is not known.*res2"):
        small("", "MODEL.SEM_SEG_HEAD.IN_FEATURES=['res6']")
    with pytest.raises(ValueError, match="AUXILIARY.IN_FEATURE is res6.*res2, res3, res4, res5"):
        small("", "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE=res6")


def test_a_batch_norm_of_one_pooled_image_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="one image in a step.*IMS_PER_BATCH to 2.*NORM to GN"):
        small().train()([sample()])
    assert small("", "MODEL.SEM_SEG_HEAD.NORM=", "MODEL.RESNETS.NORM=FrozenBN").train()([sample()])
