"""What every family of pixel classifiers does, with and without a ranking."""

import pytest
import torch
from support.pixel_families import (
    FAMILIES,
    REFINING,
    TOPK,
    make_model,
    rankseg,
    sample,
    variants,
)
from support.small import CLASSES, evaluate, train, without_gradient

from rankseg_d2.engine import Checkpointer
from rankseg_d2.modeling.meta_arch import PixelClassifier, RankSegPixelClassifier
from rankseg_d2.modeling.passes import SlidingWindow, TestTimeAugmentation

EACH = pytest.mark.parametrize("family", FAMILIES)
ALL = pytest.mark.parametrize("options", variants().values(), ids=variants())
QUICK = "UPerNet Swin"  # the other families with many options are `slow`
SOME = pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in FAMILIES],
)
RANKINGS = {
    "own embedding": {"SHARE_EMBEDDING": False},
    "dynamic": {"THRESHOLD": 0.5},
    "keep true": {"KEEP_TRUE": True},
    "full scores": {"FULL_SCORES": True},
    "oracle": {"USE_GT": True},
    "oracle of all": {"USE_GT": True, "TOPK": 0},
    "one rank": {"TOPK": 1},
    "all ranks": {"TOPK": CLASSES},
    "without a norm": {"FLAG": False, "USE_GT": True},
    "encoder": {"HEAD": "encoder"},
    "decoder": {"HEAD": "decoder"},
    "pooling": {"HEAD": "pooling", "POOL": 0},
    "query2label": {"HEAD": "query2label"},
    "conv pooling": {"HEAD": "conv_pooling", "SHARE_EMBEDDING": False},
}


def check_results(results, samples, options):
    """The results have the sizes, categories and columns that they should have."""
    for result, one in zip(results, samples, strict=True):
        size = one.get("height", one["image"].shape[1]), one.get("width", one["image"].shape[2])
        labels = result["sem_seg_labels"]
        assert labels.shape == size
        if "ranking" not in result:
            assert result["sem_seg"].shape == (CLASSES, *size)
            assert result["sem_seg"].argmax(0).equal(labels)
            continue
        scores, classes = result["sem_seg_scores"], result["sem_seg_classes"]
        assert classes.equal(result["ranking"]["classes"]) and len(classes.unique()) == len(classes)
        assert scores.shape == (len(classes), *size)
        assert classes[scores.argmax(0)].equal(labels)
        assert ("sem_seg" in result) == bool(options.get("MODEL.RANKSEG.FULL_SCORES"))
        if "sem_seg" in result:
            assert result["sem_seg"].shape == (CLASSES, *size)
            assert result["sem_seg"][classes].equal(scores)
            others = torch.ones(CLASSES, dtype=torch.bool).index_fill_(0, classes, False)
            assert not result["sem_seg"][others].any()


@ALL
def test_every_parameter_gets_a_gradient(options):
    model = make_model(options, {"MODEL.RANKSEG.TOPK": CLASSES})
    is_ranking = "MODEL.RANKSEG.FLAG" in options
    assert type(model) is (RankSegPixelClassifier if is_ranking else PixelClassifier)
    losses = train(model, [sample(0), sample(1)])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert without_gradient(model) == []


@ALL
def test_images_of_any_sizes_share_a_batch(options):
    model = make_model(options)
    samples = [sample(0, (63, 94)), sample(1, (37, 65)) | {"height": 50, "width": 40}]
    assert all(loss.isfinite() for loss in train(model, samples).values())
    results = evaluate(model, samples)
    check_results(results, samples, options)
    batch = [sample(0), sample(1)]
    together = evaluate(model, batch)
    for result, one in zip(together, batch, strict=True):
        alone = evaluate(model, [one])[0]
        assert result.keys() == alone.keys()
        same = result["sem_seg_labels"] == alone["sem_seg_labels"]
        assert same.float().mean() > 0.999
        name = "sem_seg_scores" if "ranking" in result else "sem_seg"
        error = (result[name] - alone[name]).abs().max()
        assert error < 1e-3 * alone[name].abs().max()


@SOME
@pytest.mark.parametrize("more", RANKINGS.values(), ids=RANKINGS)
def test_every_kind_of_ranking_trains_and_works_in_windows_and_scales(family, more):
    options = FAMILIES[family] | rankseg(family, **more)
    model = make_model(options)
    samples = [sample(), sample(1)]
    losses = train(model, samples)
    assert ("loss_ml" in losses) != bool(more.get("USE_GT"))
    assert all(loss.isfinite() for loss in losses.values())
    model.eval()
    ways = [model, SlidingWindow(model, (48, 64), (32, 48))]
    if family == QUICK:  # passes know nothing of families
        ways.append(TestTimeAugmentation(ways[-1], [48, 64], 1000, True))
    for way in ways:
        with torch.no_grad():
            results = way(samples)
        check_results(results, samples, options)
        for result, one in zip(results, samples, strict=True):
            kept = result["sem_seg_classes"]
            if more.get("USE_GT"):
                present = one["sem_seg"].unique()
                assert kept.tolist() == present[: more.get("TOPK", TOPK) or CLASSES].tolist()
            elif "THRESHOLD" in more:
                assert 1 <= len(kept) <= TOPK
            else:
                assert len(kept) == more.get("TOPK", TOPK)


@SOME
def test_windows_and_scales_work_without_a_ranking(family):
    model, samples = make_model(FAMILIES[family]).eval(), [sample(), sample(1, (50, 70))]
    windows = SlidingWindow(model, (48, 64), (32, 48))
    for way in (windows, TestTimeAugmentation(windows, [48, 64], 1000, True)):
        with torch.no_grad():
            check_results(way(samples), samples, {})


@ALL
def test_images_without_a_label_train(options):
    model = make_model(options)
    samples = [sample(i, sem_seg=torch.full((64, 96), 255)) for i in range(2)]
    losses = train(model, samples)
    assert all(loss.isfinite() for loss in losses.values())
    of_images = {"loss_ml", "loss_presence"}
    assert all(losses[name] == 0 for name in losses.keys() - of_images)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


@SOME
@pytest.mark.parametrize("more", [{}, {"USE_GT": True}], ids=["RankSeg", "oracle"])
def test_a_single_class_works(family, more):
    one = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 1,
        "MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS": 1,
    }
    for ranking in ({}, rankseg(family, TOPK=1, **more)):
        model = make_model(FAMILIES[family] | ranking, one)
        samples = [sample(i, classes=1) for i in range(2)]
        assert all(loss.isfinite() for loss in train(model, samples).values())
        assert evaluate(model, samples[:1])[0]["sem_seg_labels"].unique().tolist() == [0]


@SOME
def test_more_classes_than_a_byte_has_work(family):
    many = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 300,
        "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 65535,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 300,
    }
    for ranking in ({}, rankseg(family)):
        model = make_model(FAMILIES[family] | ranking, many)
        samples = [sample(i, classes=300) for i in range(2)]
        assert (samples[0]["sem_seg"] == 255).any()
        losses = train(model, samples)
        ignoring = [one | {"sem_seg": one["sem_seg"].clone()} for one in samples]
        for one in ignoring:
            one["sem_seg"][:32] = 65535
        half = train(model, ignoring)
        assert all(loss.isfinite() for loss in (losses | half).values())
        assert half["loss_sem_seg"] != losses["loss_sem_seg"]
        assert evaluate(model, samples[:1])[0]["sem_seg_labels"].max() < 300


@ALL
def test_bfloat16_trains_and_predicts(options):
    model = make_model(options)
    samples = [sample(), sample(1)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(samples)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        results = evaluate(model, samples)
    check_results(results, samples, options)


# Checkpoints of other data sets

NAMES = ["road", "sky", "car", "bus", "tree", "dog", "cat"]
OTHER = ["cat", "boat", "sky", "road", "bird"]
ROWS = (  # the parts of names of which rows stand for classes
    "predictor.", "class_norm.", "cls_emb", "class_embedding", "query_feat", "query_embed",
    "presence.", "ml_head.fc.",
)  # fmt: skip


@SOME
@pytest.mark.parametrize("head", [None, "own", "conv_pooling"])
def test_rows_of_classes_go_by_their_names(family, head, tmp_path):
    options = FAMILIES[family]
    if head:
        ranking = {} if head == "own" else {"HEAD": head, "SHARE_EMBEDDING": False}
        options = options | rankseg(family, **ranking)
    model = make_model(options)
    Checkpointer(model, str(tmp_path), class_names=NAMES).save("model")
    torch.manual_seed(1)
    other = make_model(
        options,
        {
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(OTHER),
            "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": len(OTHER),
        },
    )
    fresh = {name: value.clone() for name, value in other.state_dict().items()}
    Checkpointer(other, class_names=OTHER).load(str(tmp_path / "model.pth"))
    weights = model.state_dict()
    adapted = set()
    for name, value in other.state_dict().items():
        if name.startswith("ml_norm.") or value.shape == weights[name].shape:
            assert value.equal(weights[name]), name
            continue
        (dim,) = [d for d in range(value.dim()) if value.shape[d] != weights[name].shape[d]]
        adapted.add(name)
        for row, class_name in enumerate(OTHER):
            own = value.select(dim, row)
            if class_name in NAMES:
                expected = weights[name].select(dim, NAMES.index(class_name))
            else:
                expected = fresh[name].select(dim, row)
            assert own.equal(expected), (name, class_name)
    assert adapted


# Bad input

SEM_SEG_HEAD = "MODEL.SEM_SEG_HEAD."


@EACH
def test_a_level_that_the_backbone_lacks_is_named(family):
    levels = FAMILIES[family].get(f"{SEM_SEG_HEAD}IN_FEATURES", ["res2", "res3", "res4", "res5"])
    with pytest.raises((KeyError, ValueError), match=r"IN_FEATURES\W.*res9.*(res2|last)"):
        make_model(FAMILIES[family], {f"{SEM_SEG_HEAD}IN_FEATURES": [*levels, "res9"]})
    with pytest.raises(ValueError, match=r"AUXILIARY.IN_FEATURE is res9, but the backbone gives"):
        make_model(FAMILIES[family], {f"{SEM_SEG_HEAD}AUXILIARY.IN_FEATURE": "res9"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"TOPK": 8}, r"TOPK must be in \[1, 7\], the number of classes; got 8"),
        ({"TOPK": 0}, r"TOPK must be in \[1, 7\], the number of classes; got 0"),
        (
            {"HEAD": "conv_pooling", "SHARE_EMBEDDING": True},
            "SHARE_EMBEDDING is True, but .* conv_pooling has no class embedding that could be",
        ),
        (
            {"HEAD": "query2label", "HIDDEN_DIM": 36},
            r"MODEL\.RANKSEG\.HIDDEN_DIM: .* multiple of the 8 attention heads .*; got 36",
        ),
        ({"THRESHOLD": 1.0}, "THRESHOLD must be a probability"),
    ],
    ids=["too many ranks", "no ranks", "nothing to share", "width", "threshold"],
)
@SOME
def test_rankings_that_cannot_be_are_refused(family, more, message):
    with pytest.raises(ValueError, match=message):
        make_model(FAMILIES[family], rankseg(family, **more))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in REFINING])
def test_the_block_head_is_segmenters_alone(family):
    with pytest.raises(ValueError, match="block is a part of Segmenter's decoder, but"):
        make_model(FAMILIES[family], rankseg(family, HEAD="block"))


@SOME
def test_a_loss_weight_of_zero_is_said(family, caplog):
    model = make_model(FAMILIES[family], rankseg(family, LOSS_WEIGHT=0))
    assert "LOSS_WEIGHT is 0, so nothing trains the multi-label head" in caplog.text
    assert train(model, [sample(), sample(1)])["loss_ml"] == 0


@pytest.mark.parametrize("value", [CLASSES, -1])
@pytest.mark.parametrize("ranking", [{}, rankseg("SegFormer")], ids=["plain", "RankSeg"])
def test_labels_that_are_no_class_are_refused(value, ranking):
    wrong = sample(1, file_name="b.png")
    wrong["sem_seg"][3, 5] = value
    message = f"b.png has a pixel of class {value}, but .*NUM_CLASSES is 7, which allows 0 to 6"
    with pytest.raises(ValueError, match=message):
        make_model(FAMILIES["SegFormer"], ranking).train()([sample(), wrong])


def test_an_ignored_label_that_is_a_class_is_refused():
    with pytest.raises(ValueError, match="IGNORE_VALUE is 255, which is one of the 300 classes"):
        make_model(FAMILIES["SegFormer"], {f"{SEM_SEG_HEAD}NUM_CLASSES": 300})


# What is one graph


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    ["Segmenter OCE", "Segmenter EncNet", "DeepLabV3", "UPerNet Swin", "UPerNet BEiT", "SegFormer"],
)
def test_a_compiled_network_gives_the_same_results(family):
    model = make_model(FAMILIES[family] | rankseg(family)).eval()
    samples = [sample(), sample(1)]
    expected = evaluate(model, samples)
    torch._dynamo.reset()  # or, after other sizes, it is compiled for any size, in minutes
    model.compile(fullgraph=True, backend="aot_eager")
    for one, other in zip(evaluate(model, samples), expected, strict=True):
        assert one["sem_seg_classes"].equal(other["sem_seg_classes"])
        torch.testing.assert_close(
            one["sem_seg_scores"], other["sem_seg_scores"], rtol=1e-3, atol=1e-3
        )
