import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from support.small import (
    CLASSES,
    KINDS,
    MASK2FORMER,
    MASKFORMER,
    QUERIES,
    RANKSEG,
    VIDEO,
    clip_sample,
    count_copies,
    evaluate,
    image_sample,
    make_config,
    make_model,
    make_sample,
    outputs_of,
    picture,
    scores_of,
    train,
    without_gradient,
)
from torch.nn import functional as F

from rankseg_d2.ranking import asymmetric_loss, multi_hot, restrict

BOTH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
IMAGE_AND_VIDEO = pytest.mark.parametrize("video", [{}, VIDEO], ids=["image", "video"])
ORACLE = {"MODEL.RANKSEG.USE_GT": True}
LINEAR = {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False}
FULL = {"MODEL.RANKSEG.FULL_SCORES": True}


def kappa(k):
    return {"MODEL.RANKSEG.TOPK": k}


# Ranking


@BOTH
@IMAGE_AND_VIDEO
def test_results_carry_the_ranking_and_need_no_ground_truth(kind, video):
    model = make_model(kind, video, RANKSEG)
    make = clip_sample if video else image_sample
    images = [{"image": make(number)["image"]} for number in range(3)]
    for result in evaluate(model, images):
        scores, classes = result["ranking"]["scores"], result["ranking"]["classes"]
        assert scores.shape == (CLASSES,)
        assert classes.tolist() == scores.argsort(descending=True)[:4].tolist()
        assert result["sem_seg_classes"].tolist() == classes.tolist()
        assert result["sem_seg_scores"].shape[0] == 4
        assert set(result["sem_seg_labels"].unique().tolist()) <= set(classes.tolist())


@pytest.mark.parametrize("cosine", [{}, LINEAR], ids=["cosine", "linear"])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no norm"])
def test_fewer_columns_equal_all_columns_and_then_a_selection(cosine, norm):
    model = make_model(MASK2FORMER, RANKSEG, cosine).eval()
    if not norm:
        del model.ml_norm
    with torch.no_grad():
        outputs = outputs_of(model, torch.stack([picture(0), picture(1)]) / 60 - 2)
        queries, embedding = outputs.queries[-1], model.sem_seg_head.predictor.class_embed
        if cosine is LINEAR:
            everything = embedding(queries)
        else:
            everything = F.normalize(queries, dim=-1) @ F.normalize(embedding.weight, dim=-1).T
        expected = restrict(everything, outputs.ranking)
        if norm:
            expected = model.ml_norm(expected)
    assert outputs.logits.shape == (1, 2, QUERIES, 5)
    torch.testing.assert_close(outputs.logits[0], expected, rtol=1e-4, atol=1e-5)


def test_semantic_scores_of_ranked_classes_are_their_columns_of_all_scores():
    ranked, full = (make_model(MASK2FORMER, RANKSEG, some) for some in ({}, FULL))
    ranked, full = (evaluate(model, [image_sample()])[0] for model in (ranked, full))
    assert "sem_seg" not in ranked
    classes = ranked["sem_seg_classes"]
    assert full["sem_seg"].shape == (CLASSES, 64, 96)
    torch.testing.assert_close(full["sem_seg"][classes], ranked["sem_seg_scores"])
    absent = [c for c in range(CLASSES) if c not in classes.tolist()]
    assert not full["sem_seg"][absent].any()


@BOTH
@IMAGE_AND_VIDEO
@pytest.mark.parametrize("k", [1, CLASSES])
def test_kappa_of_one_and_of_all_classes_work(kind, video, k):
    model = make_model(kind, video, RANKSEG, kappa(k))
    samples = [make_sample(model, number) for number in range(2)]
    losses = train(model, samples)
    assert all(loss.isfinite() for loss in losses.values())
    for result in evaluate(model, samples):
        assert len(result["ranking"]["classes"]) == k
        assert scores_of(result).isfinite().all()


def test_threshold_keeps_the_probable_categories_only():
    model = make_model(MASK2FORMER, RANKSEG, kappa(CLASSES), {"MODEL.RANKSEG.THRESHOLD": 0.5})
    counts = set()
    for result in evaluate(model, [image_sample(number) for number in range(6)]):
        scores, classes = result["ranking"]["scores"], result["ranking"]["classes"]
        probable = (scores > 0).sum().clamp(min=1)
        assert classes.tolist() == scores.argsort(descending=True)[:probable].tolist()
        assert result["sem_seg_classes"].tolist() == classes.tolist()
        assert set(result["sem_seg_labels"].unique().tolist()) <= set(classes.tolist())
        counts.add(len(classes))
    assert len(counts) > 1


# Training


@BOTH
@IMAGE_AND_VIDEO
def test_multi_label_loss_is_added_to_upstreams(kind, video):
    plain, ranked = make_model(kind, video), make_model(kind, video, RANKSEG)
    samples = [make_sample(plain, 0), make_sample(plain, 1, labels=[0])]
    losses = train(ranked, samples)
    assert losses.keys() == train(plain, samples).keys() | {"loss_ml"}
    torch.manual_seed(0)
    clips = ranked.train().preprocess(samples)
    scores = ranked.run_network(clips).scores
    present = multi_hot([torch.tensor([1, 3, 3]), torch.tensor([0])], CLASSES)
    torch.testing.assert_close(losses["loss_ml"], 10 * asymmetric_loss(scores, present))


def samples_of_ranks(model, *ranks):
    """Two images with objects of the categories that have these ranks, and all in rank order."""
    model.ml_head.eval()  # no dropout
    samples = [image_sample(0), image_sample(1)]
    with torch.no_grad():
        scores = model.run_network(model.preprocess(samples)).scores
    order = scores.argsort(descending=True).tolist()
    return [
        image_sample(i, labels=[ids[rank] for rank in ranks]) for i, ids in enumerate(order)
    ], order


def test_objects_outside_of_the_ranking_are_no_targets():
    model = make_model(MASK2FORMER, RANKSEG, kappa(2)).train()
    samples, _ = samples_of_ranks(model, 5, 1)
    seen = []
    model.criterion.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with EventStorage() as storage:
        model(samples)
    assert storage.latest()["ranking/kept_objects"][0] == 0.5
    for sample, target in zip(samples, seen[0], strict=True):
        assert target["labels"].tolist() == [1]  # a rank
        assert torch.equal(target["masks"][:, 0], sample["instances"].gt_masks[1:])


@pytest.mark.parametrize("threshold", [0.0, 0.999])
def test_true_categories_can_be_kept_in_training(threshold):
    options = {"MODEL.RANKSEG.KEEP_TRUE": True, "MODEL.RANKSEG.THRESHOLD": threshold}
    model = make_model(MASK2FORMER, RANKSEG, kappa(2), options).train()
    samples, order = samples_of_ranks(model, 5, 1)
    seen = []
    model.criterion.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(samples)
    assert [target["labels"].tolist() for target in seen[0]] == [[1, 0]] * 2  # ranks, by the scores
    model.eval()
    kept = [result["ranking"]["classes"].tolist() for result in model(samples)]
    assert kept == [ids[: 1 if threshold else 2] for ids in order]  # the test has no ground truth


@BOTH
@IMAGE_AND_VIDEO
@pytest.mark.parametrize("options", [{}, ORACLE], ids=["head", "oracle"])
def test_losses_need_two_copies_to_the_host(kind, video, options, monkeypatch):
    """As counted in test_criterion.py: what is left by the ranking, and the matching costs."""
    model = make_model(kind, video, RANKSEG, options).train()
    samples = [make_sample(model, 0, labels=range(CLASSES)), make_sample(model, 1, labels=[])]
    clips = model.preprocess(samples)
    targets = model.prepare_targets(samples, clips)
    outputs = model.run_network(clips)
    copies = count_copies(monkeypatch)
    sum(model.losses(outputs, targets).values()).backward()
    assert len(copies) == 2


@BOTH
@IMAGE_AND_VIDEO
def test_images_with_all_objects_outside_of_the_ranking_train(kind, video):
    model = make_model(kind, video, RANKSEG, kappa(1))
    for label in (0, 3, 6):  # at most one of them is ranked
        model.zero_grad()
        losses = train(model, [make_sample(model, 0, labels=[label])])
        assert all(loss.isfinite() for loss in losses.values())
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


TRAINED = {
    "own tokens": {},
    "embedding shared": {"SHARE_EMBEDDING": True, "HIDDEN_DIM": 32},
    "embedding shared, other width": {"SHARE_EMBEDDING": True},
}


@pytest.mark.parametrize("head", ["encoder", "decoder", "pooling"])
@pytest.mark.parametrize("tokens", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("loss", ["asymmetric", "bce"])
def test_every_parameter_gets_a_gradient(head, tokens, loss):
    keys = tokens | {"HEAD": head, "LOSS": loss}
    model = make_model(
        MASK2FORMER, RANKSEG, {f"MODEL.RANKSEG.{key}": value for key, value in keys.items()}
    )
    train(model, [make_sample(model, number, labels=range(CLASSES)) for number in range(2)])
    assert without_gradient(model) == []


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        RANKSEG | VIDEO,
        RANKSEG | LINEAR,
        RANKSEG | {"MODEL.RANKSEG.THRESHOLD": 0.3},
        RANKSEG | {"MODEL.RANKSEG.LAYER": 1},
        RANKSEG | ORACLE,
        ORACLE,
    ],
    ids=["video", "linear", "threshold", "layer", "oracle with norm", "oracle alone"],
)
def test_every_parameter_gets_a_gradient_in_other_variants(kind, options):
    model = make_model(kind, options)
    train(model, [make_sample(model, number, labels=range(CLASSES)) for number in range(2)])
    assert without_gradient(model) == []
    names = dict(model.named_parameters())
    is_cosine = options.get("MODEL.SEM_SEG_HEAD.USE_LAYERNORM", False)
    assert ("sem_seg_head.predictor.class_embed.bias" in names) == (not is_cosine)
    assert ("ml_norm.weight" in names) == ("MODEL.RANKSEG.FLAG" in options)
    assert ("ml_head.fc.W" in names) == ("MODEL.RANKSEG.USE_GT" not in options)


def test_zero_rows_in_the_cosine_classifier_give_no_nan():
    model = make_model(MASK2FORMER, RANKSEG)
    with torch.no_grad():
        model.sem_seg_head.predictor.class_embed.weight[::2] = 0
        model.sem_seg_head.predictor.decoder_norm.weight.zero_()
        model.sem_seg_head.predictor.decoder_norm.bias.zero_()  # all queries are zero
    losses = train(model, [image_sample()])
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert scores_of(evaluate(model, [image_sample()])[0]).isfinite().all()


@pytest.mark.parametrize("video", [{}, VIDEO], ids=["image", "video"])
def test_weight_decay_is_lifted_from_class_tokens(video):
    model = make_model(MASK2FORMER, RANKSEG, video)
    assert model.no_weight_decay() == {"ml_head.cls_emb"}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()
    shared = {"MODEL.RANKSEG.SHARE_EMBEDDING": True}
    assert make_model(MASK2FORMER, RANKSEG, shared, video).no_weight_decay() == set()
    assert make_model(MASK2FORMER, RANKSEG, ORACLE, video).no_weight_decay() == set()


# Oracle


@BOTH
@IMAGE_AND_VIDEO
@pytest.mark.parametrize("rankseg", [{}, RANKSEG], ids=["alone", "with norm"])
def test_oracle_predicts_present_categories_only(kind, video, rankseg):
    model = make_model(kind, video, rankseg, ORACLE)
    assert hasattr(model, "ml_norm") == bool(rankseg)
    samples = [make_sample(model, 0, labels=[5, 1, 1]), make_sample(model, 1, labels=[2])]
    results = evaluate(model, samples)
    assert results[0]["ranking"]["classes"].tolist() == [1, 5]
    assert results[1]["ranking"]["classes"].tolist() == [2]
    assert set(results[0]["sem_seg_labels"].unique().tolist()) <= {1, 5}
    assert (results[1]["sem_seg_labels"] == 2).all()
    losses = train(model, samples)
    assert "loss_ml" not in losses
    assert all(loss.isfinite() for loss in losses.values())


def test_oracle_of_an_image_without_objects_predicts_no_category():
    model = make_model(MASK2FORMER, RANKSEG, ORACLE)
    result = evaluate(model, [image_sample(labels=[])])[0]
    assert result["ranking"]["classes"].tolist() == []
    assert (result["sem_seg_labels"] == CLASSES).all()


def test_oracle_reads_label_maps_at_their_own_size(tmp_path):
    labels = np.full((300, 400), 255, np.uint8)
    labels[0, 0], labels[5, 5:] = 6, 2  # category 6 is one pixel
    path = tmp_path / "labels.png"
    Image.fromarray(labels).save(path)
    model = make_model(MASK2FORMER, RANKSEG, ORACLE)
    small = torch.from_numpy(labels[5::10, 5::10].copy())  # without category 6
    sample = {"image": picture(), "sem_seg_file_name": str(path)}
    assert evaluate(model, [sample])[0]["ranking"]["classes"].tolist() == [2, 6]
    # A label map in the sample has class ids for sure, so it goes before the file.
    sample["sem_seg"] = small
    assert evaluate(model, [sample])[0]["ranking"]["classes"].tolist() == [2]
    sample["present_classes"] = torch.tensor([2, 6])  # as our mappers give them
    assert evaluate(model, [sample])[0]["ranking"]["classes"].tolist() == [2, 6]


# Errors


def builds(*options):
    return build_model(make_config(*options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            kappa(0),
            r"MODEL\.RANKSEG\.TOPK must be in \[1, 7\], the number of classes; got 0\.",
        ),
        (kappa(-1), r"MODEL\.RANKSEG\.TOPK must be .* got -1\."),
        (kappa(8), r"MODEL\.RANKSEG\.TOPK must be .* got 8\. 7 keeps every category\."),
        (ORACLE | kappa(8), r"MODEL\.RANKSEG\.TOPK must be .* got 8"),
        (
            {"MODEL.RANKSEG.LAYER": 4},
            r"MODEL\.RANKSEG\.LAYER must be in \[1, 3\], the number of decoder layers; got 4\. "
            r"Change it, or raise MODEL\.MASK_FORMER\.DEC_LAYERS \(EoMT: ",
        ),
        ({"MODEL.RANKSEG.LAYER": 0}, r"MODEL\.RANKSEG\.LAYER must be .* got 0\."),
        (
            {"MODEL.RANKSEG.THRESHOLD": 1.0},
            r"MODEL\.RANKSEG\.THRESHOLD must be a probability .* got 1\.0\.",
        ),
        ({"MODEL.RANKSEG.THRESHOLD": -0.5}, r"MODEL\.RANKSEG\.THRESHOLD .* got -0\.5\."),
        (
            {"MODEL.RANKSEG.GROUPS": 8},
            r"MODEL\.RANKSEG\.GROUPS must be in \[0, 7\], the number of classes .* got 8\.",
        ),
        (
            {"MODEL.RANKSEG.HEAD": "group", "MODEL.RANKSEG.SHARE_EMBEDDING": True},
            r"MODEL\.RANKSEG\.HEAD group has no class embedding that could be shared",
        ),
        (
            {"MODEL.RANKSEG.HIDDEN_DIM": 200},
            r"MODEL\.RANKSEG\.HIDDEN_DIM: .* multiple of its 3 attention heads .* 192; got 200\.",
        ),
    ],
)
@pytest.mark.parametrize("kind", [MASKFORMER, MASK2FORMER], ids=["maskformer", "mask2former"])
def test_keys_out_of_range_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        builds(kind, RANKSEG, options)


@pytest.mark.parametrize(
    ("key", "name", "near"),
    [
        ("MODEL.RANKSEG.HEAD", "encodr", "encoder"),
        ("MODEL.RANKSEG.HEAD", "grop", "group"),
        ("MODEL.RANKSEG.LOSS", "asymetric", "asymmetric"),
        ("MODEL.RANKSEG.LOSS", "twoway", "two_way"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_ones(key, name, near):
    message = rf"{key}: '{name}' is not known; the nearest names are {near}".replace(".", r"\.")
    with pytest.raises(KeyError, match=message):
        builds(MASK2FORMER, RANKSEG, {key: name})


@pytest.mark.parametrize("name", ["MaskFormer", "VideoMaskFormer"])
def test_the_class_by_name_needs_a_ranking(name):
    named = {"MODEL.META_ARCHITECTURE": f"RankSeg{name}"}
    message = rf"is RankSeg{name}, but .* set MODEL\.RANKSEG\.FLAG True, .* it is {name}$"
    with pytest.raises(ValueError, match=message):
        builds(MASK2FORMER, named)
    assert type(builds(MASK2FORMER, RANKSEG, named)).__name__ == f"RankSeg{name}"


@IMAGE_AND_VIDEO
def test_oracle_without_labels_is_refused(video):
    model = make_model(MASK2FORMER, RANKSEG, ORACLE, video).eval()
    sample = make_sample(model)
    del sample["instances"]
    with pytest.raises(RuntimeError, match=r"has no labels\. MODEL\.RANKSEG\.USE_GT ranks by the"):
        model([sample | {"file_name": "street/7.jpg"}])


def test_multi_label_loss_without_weight_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, logger="rankseg_d2"):
        builds(MASK2FORMER, RANKSEG, {"MODEL.RANKSEG.LOSS_WEIGHT": 0})
    assert "MODEL.RANKSEG.LOSS_WEIGHT is 0, so nothing trains" in caplog.text
    caplog.clear()
    builds(MASK2FORMER, RANKSEG)
    assert caplog.text == ""


def test_ranking_of_every_category_in_id_order_changes_no_logit():
    plain = make_model(MASK2FORMER).eval()
    ranked = make_model(MASK2FORMER, RANKSEG, LINEAR, kappa(CLASSES)).eval()
    del ranked.ml_norm
    frames = picture()[None] / 60 - 2
    with torch.no_grad():
        expected = outputs_of(plain, frames).logits
        outputs = outputs_of(ranked, frames)
        ranking = replace(outputs.ranking, index=torch.arange(CLASSES)[None])
        logits = ranked.classify(outputs.queries, ranking)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
