import pytest
import torch
from detectron2.modeling import build_model
from support.small import CLASSES, RANKSEG, make_config, picture
from torch.nn import functional as F

from rankseg_d2.modeling.meta_arch import PixelClassifier, RankSegPixelClassifier
from rankseg_d2.modeling.passes import SlidingWindow, TestTimeAugmentation
from rankseg_d2.modeling.pixel_heads.segmenter import keep_best, with_best_others
from rankseg_d2.transformer_block import Block

SEGMENTER = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.BACKBONE.NAME": "VisionTransformer",
    "MODEL.VIT.IMAGE_SIZE": 64,
    "MODEL.VIT.EMBED_DIM": 64,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "SegmenterMaskHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["last"],
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.AVERAGE_ALL": True,
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
}
LINEAR = {"MODEL.SEM_SEG_HEAD.NAME": "SegmenterLinearHead"}
ESSNET = {
    "MODEL.SEM_SEG_HEAD.NAME": "SegmenterESSNetHead",
    "MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": 3,
    "MODEL.SEM_SEG_HEAD.ESSNET.DIM": 8,
}
OCE = {"MODEL.VIT.CLASS_EMBEDDING": True}
BLOCK = RANKSEG | {"MODEL.RANKSEG.HEAD": "block", "MODEL.RANKSEG.POOL": 2}
ORACLE = RANKSEG | {"MODEL.RANKSEG.USE_GT": True, "MODEL.RANKSEG.TOPK": 0}


def head_of(name, **options):
    keys = {"HEAD": name, "HIDDEN_DIM": 64, "POOL": 2} | options
    return RANKSEG | {f"MODEL.RANKSEG.{key}": value for key, value in keys.items()}


VARIANTS = {
    "mask": {},
    "linear": LINEAR,
    "ESSNet": ESSNET,
    "EncNet": {"MODEL.SEM_SEG_HEAD.ENCODING.CODES": 4, "MODEL.SEM_SEG_HEAD.NORM": "BN"},
    "OCE": OCE,
    "RankSeg": BLOCK,
    "RankSeg without pooling": BLOCK | {"MODEL.RANKSEG.POOL": 0},
    "RankSeg with OCE": BLOCK | OCE,
    "RankSeg with OCE, decoder": head_of("query2label", SHARE_EMBEDDING=True) | OCE,
    "RankSeg with ESSNet": BLOCK | ESSNET,
    "encoder": head_of("encoder", SHARE_EMBEDDING=True),
    "separable": head_of("separable"),
    "decoder": head_of("query2label"),
    "pooling": head_of("conv_pooling"),
    "dynamic": BLOCK | {"MODEL.RANKSEG.THRESHOLD": 0.7},
    "linear with RankSeg": LINEAR | head_of("encoder"),
    "oracle": ORACLE,
}
ALL = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def make_model(*options):
    torch.manual_seed(0)
    model = build_model(make_config(SEGMENTER, *options)).eval()
    for name, parameter in model.named_parameters():  # classes and pixels that differ
        is_scale = name.endswith(("norm.weight", "norm1.weight", "norm2.weight"))
        torch.nn.init.normal_(parameter, float(is_scale), 0.2)
    return model


def sample(number=0, size=(64, 96)):
    labels = (picture(number, size)[0] * CLASSES // 256).long()
    labels[(labels == 0) | (labels == 5)] = 3  # so that two classes are absent
    labels[:5] = 255
    return {"image": picture(number, size), "sem_seg": labels}


def losses_of(model, samples):
    model.training = True  # of the model alone, so that nothing is dropped
    losses = model(samples)
    model.training = False
    return losses


@ALL
def test_every_parameter_gets_a_gradient(options):
    model = make_model(options).train()
    sum(model([sample(), sample(1)]).values()).backward()
    none = [name for name, p in model.named_parameters() if p.grad is None]
    assert not none
    # the keys' bias cancels in each softmax, so its gradient is only noise
    zero = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert not zero


@ALL
def test_a_batch_equals_its_images(options):
    model, samples = make_model(options).double(), [sample(i) for i in range(3)]
    with torch.no_grad():
        together, alone = model(samples), [model([one])[0] for one in samples]
    for a, b in zip(together, alone, strict=True):
        assert a["sem_seg_labels"].equal(b["sem_seg_labels"])
        for name in {"sem_seg", "sem_seg_scores"} & a.keys():
            assert a[name].allclose(b[name], atol=1e-8)
    losses, parts = losses_of(model, samples), [losses_of(model, [one]) for one in samples]
    for name, loss in losses.items():
        mean = sum(part[name].item() for part in parts) / 3
        assert loss.item() == pytest.approx(mean, rel=1e-6), name


@ALL
def test_images_of_any_size_have_results_of_their_size(options):
    model = make_model(options)
    samples = [sample(size=(50, 75)), sample(1, size=(33, 90)) | {"height": 66, "width": 45}]
    with torch.no_grad():
        results = model(samples)
        with torch.autocast("cpu", torch.bfloat16):
            model(samples)
    assert [tuple(r["sem_seg_labels"].shape) for r in results] == [(50, 75), (66, 45)]


@pytest.mark.parametrize("options", [{}, BLOCK, OCE | BLOCK, ORACLE], ids=str)
def test_windows_and_augmentation_wrap_it(options):
    model = make_model(options)
    wrappers = (
        SlidingWindow(model, (64, 64), (48, 48)),
        TestTimeAugmentation(model, min_sizes=[64], max_size=200, flip=True),
    )
    for wrapped in wrappers:
        with torch.no_grad():
            (result,) = wrapped.eval()([sample(size=(70, 100)) | {"height": 70, "width": 100}])
        assert result["sem_seg_labels"].shape == (70, 100)


@pytest.mark.slow
def test_its_network_is_one_graph():
    model = make_model(BLOCK)
    with torch.no_grad():
        expected = model([sample()])[0]["sem_seg_scores"]
        torch._dynamo.reset()
        model.compile(backend="eager", fullgraph=True)
        assert model([sample()])[0]["sem_seg_scores"].allclose(expected, atol=1e-5)


# RankSeg


def test_with_all_ranks_it_is_the_baseline_but_for_the_order_of_the_norm():
    """Classes in the order of their ranks have the same cosines."""
    baseline = make_model({"MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES})
    ranked = make_model(head_of("encoder", TOPK=CLASSES))
    assert type(baseline) is PixelClassifier and type(ranked) is RankSegPixelClassifier
    ranked.load_state_dict(ranked.state_dict() | {
        name: x for name, x in baseline.state_dict().items() if "class_norm" not in name
    })  # fmt: skip
    for norm in (baseline.sem_seg_head.class_norm, ranked.ml_norm):
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    with torch.no_grad():
        expected, found = baseline([sample()])[0], ranked([sample()])[0]
    assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
    scores = expected["sem_seg"][found["sem_seg_classes"]]
    assert found["sem_seg_scores"].allclose(scores, atol=1e-5)


@pytest.mark.parametrize("pool", [0, 2])
def test_the_block_changes_what_the_classifier_reads(pool):
    model = make_model(BLOCK | {"MODEL.RANKSEG.POOL": pool})
    head, ml_head = model.sem_seg_head, model.ml_head
    clips = model.preprocess([sample(), sample(1)])
    with torch.no_grad():
        before = head(model.backbone(clips.tensor))
        after = model.network(clips.tensor)
        read = F.adaptive_avg_pool2d(before.pixels, pool) if pool else before.pixels
        tokens = torch.cat([read.flatten(2).mT, head.cls_emb.expand(2, -1, -1)], dim=1)
        both = Block.forward(ml_head.block, tokens)
        pixels, classes = both[:, :-CLASSES], ml_head.norm(both[:, -CLASSES:])
        scores = (classes * ml_head.fc.W).sum(-1) + ml_head.fc.b
    assert after.scores.allclose(scores, atol=1e-5)
    assert after.classes[0].allclose(classes, atol=1e-5)
    expected = before.pixels.flatten(2).mT if pool else pixels
    assert after.pixels.flatten(2).mT.allclose(expected, atol=1e-5)


@pytest.mark.parametrize("options", [ORACLE, VARIANTS["dynamic"]], ids=["oracle", "dynamic"])
def test_classes_that_are_not_kept_are_not_read(options):
    model = make_model(options)
    clips = model.preprocess([sample()])
    with torch.no_grad():
        outputs = model.run_network(clips)
        ranking = model.ranker.rank(outputs.scores)
        assert not ranking.valid.all()
        logits = model.decide(outputs.ranked(ranking)).logits[-1]
        dropped = torch.ones(CLASSES, dtype=torch.bool)
        dropped[ranking.index[ranking.valid]] = False
        classes = outputs.classes[0].clone()
        classes[:, dropped] = 50.0
        changed = model.decide(
            type(outputs)(**vars(outputs) | {"classes": [classes], "ranking": ranking})
        )
    assert changed.logits[-1].allclose(logits, atol=1e-5)


def test_the_oracle_keeps_all_that_are_present_in_the_order_of_their_ids():
    model = make_model(ORACLE)
    one = sample()
    present = sorted(set(one["sem_seg"].unique().tolist()) - {255})
    with torch.no_grad():
        (result,) = model([one])
    assert result["sem_seg_classes"].tolist() == present
    assert model.ml_norm.unbiased and model.ranker.topk == CLASSES


def test_an_image_without_labels_has_a_finite_loss_and_no_class_for_the_oracle():
    model, one = make_model(ORACLE), sample()
    one["sem_seg"] = torch.full_like(one["sem_seg"], 255)
    assert losses_of(model, [one])["loss_sem_seg"].item() == 0
    with torch.no_grad():
        (result,) = model([one])
    assert result["sem_seg_labels"].unique().tolist() == [CLASSES]


# ESSNet


def test_the_best_classes_of_each_pixel_are_kept():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    found = keep_best(logits, 3)
    for own, kept in zip(logits.flatten(0, 1), found.flatten(0, 1), strict=True):
        best = own.sort(descending=True).indices
        assert kept[best[:3]].equal(own[best[:3]]) and (kept[best[3:]] == -100).all()


def test_a_pixels_class_competes_with_the_best_others():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 4, 6, generator=generator)
    labels = torch.randint(0, 7, (2, 3, 5), generator=generator)  # the rest is padding
    labels[0, 0, :2] = 255
    found, zeros = with_best_others(logits, labels, 3, 255)
    assert zeros.equal(torch.where(labels == 255, 255, 0)) and found.shape == (2, 4, 3, 5)
    for b, y, x in (labels != 255).nonzero().tolist():
        own, label = logits[b, :, y, x].tolist(), labels[b, y, x].item()
        others = sorted(own[:label] + own[label + 1 :], reverse=True)
        assert found[b, :, y, x].tolist() == [own[label], *others[:3]]


def test_with_all_classes_as_neighbours_its_loss_is_the_usual_one():
    model = make_model(ESSNET | {"MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": CLASSES})
    usual = make_model(ESSNET | {"MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": 2})
    clips = model.preprocess([sample()])
    targets = model.prepare_targets([sample()], clips)
    model.sem_seg_head.training = True
    with torch.no_grad():
        outputs = model.network(clips.tensor)
        logits = F.interpolate(model.decide(outputs).logits[-1], (64, 96), mode="bilinear")
        loss = F.cross_entropy(logits, targets.labels, ignore_index=255, reduction="sum")
        found = model.losses(outputs, targets)["loss_sem_seg"].item()
        usual.sem_seg_head.training = True
        fewer = usual.losses(usual.network(clips.tensor), targets)["loss_sem_seg"].item()
    assert found == pytest.approx(loss.item() / (64 * 96), rel=1e-5)
    assert fewer < found


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"]},
            r"IN_FEATURES ends with res5, but the backbone gives last; choose one of these",
        ),
        (
            LINEAR | BLOCK,
            r"MODEL\.RANKSEG\.HEAD block is a part of Segmenter's decoder, but .* is "
            "SegmenterLinearHead",
        ),
        (
            ESSNET | {"MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": 8},
            r"ESSNET\.NEIGHBOURS must be at most 7, the number of classes; got 8",
        ),
        (
            {"MODEL.VIT.EMBED_DIM": 200},
            "3 heads of attention cannot share 200 channels",
        ),
        (
            BLOCK | {"MODEL.RANKSEG.TOPK": 0},
            r"MODEL\.RANKSEG\.TOPK must be in \[1, 7\]",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(make_config(SEGMENTER, options))
