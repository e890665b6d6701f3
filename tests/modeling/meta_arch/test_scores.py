"""Where the ranking comes from: the multi-label head, masks, or both; and when κ changes."""

from dataclasses import replace

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support import pixel_families as pixels
from support.small import (
    CLASSES,
    KINDS,
    MASK2FORMER,
    RANKSEG,
    VIDEO,
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

from rankseg_d2.modeling.passes import SlidingWindow
from rankseg_d2.ranking import asymmetric_loss, multi_hot

EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
IMAGE_AND_VIDEO = pytest.mark.parametrize("video", [{}, VIDEO], ids=["image", "video"])
FIXED = [name for name in pixels.FAMILIES if name not in pixels.REFINING]


def keys(**options):
    return {f"MODEL.RANKSEG.{name}": value for name, value in options.items()}


FREE = keys(FLAG=True, SCORES="masks", NORM=False)  # what a plain checkpoint needs
ALL = {f"MODEL.MASK_FORMER.TEST.{name}_ON": True for name in ("SEMANTIC", "PANOPTIC", "INSTANCE")}
FRAMES = torch.stack([picture(0), picture(1)]) / 60 - 2


def best_probabilities(logits, num_classes=CLASSES):
    """Of each category among all queries: (B, Q, C+1) -> (B, C)."""
    return logits.double().softmax(-1)[..., :num_classes].amax(1)


# A plain checkpoint


@EACH
@IMAGE_AND_VIDEO
def test_a_plain_model_gets_a_ranking_and_keeps_its_results(kind, video):
    results = {} if video else ALL
    plain = make_model(kind, video, results)
    ranked = make_model(kind, video, results, FREE, keys(TOPK=CLASSES, FULL_SCORES=True))
    assert ranked.state_dict().keys() == plain.state_dict().keys()
    ranked.load_state_dict(plain.state_dict())
    samples = [make_sample(plain, number) for number in range(2)]
    for model in (plain, ranked):
        model.result_options = replace(model.result_options, thing_ids=frozenset({0, 2, 5}))
    for result, wanted in zip(evaluate(ranked, samples), evaluate(plain, samples), strict=True):
        torch.testing.assert_close(result["sem_seg"], wanted["sem_seg"], atol=1e-5, rtol=1e-4)
        assert result["sem_seg_labels"].equal(wanted["sem_seg_labels"])
        if not video:
            own, other = (x["panoptic_seg"][1] for x in (result, wanted))
            assert own == [x | {"score": pytest.approx(x["score"])} for x in other]
            assert result["panoptic_seg"][0].equal(wanted["panoptic_seg"][0])
            for name in ("scores", "pred_classes"):
                own, other = (x["instances"].get(name) for x in (result, wanted))
                torch.testing.assert_close(own.sort().values, other.sort().values)


@EACH
@IMAGE_AND_VIDEO
def test_masks_rank_by_the_largest_class_probability_of_any_query(kind, video):
    plain, ranked = make_model(kind, video), make_model(kind, video, FREE, keys(TOPK=3))
    frames = 2 if video else 1
    expected = best_probabilities(outputs_of(plain.eval(), FRAMES, frames).logits[-1])
    outputs = outputs_of(ranked.eval(), FRAMES, frames)
    assert outputs.head_scores is None
    torch.testing.assert_close(outputs.scores.sigmoid().double(), expected, atol=1e-5, rtol=1e-4)
    assert outputs.ranking.index.equal(expected.argsort(descending=True)[:, :3])
    samples = [make_sample(plain, number) for number in range(2)]
    for result in evaluate(ranked, samples):
        kept = result["ranking"]["classes"].tolist()
        assert len(kept) == 3
        assert set(result["sem_seg_labels"].unique().tolist()) <= set(kept)


@pytest.mark.parametrize("family", FIXED)
def test_a_plain_pixel_classifier_gets_a_ranking_and_keeps_its_results(family):
    options = pixels.FAMILIES[family]
    more = keys(TOPK=CLASSES, FULL_SCORES=True)
    plain, ranked = pixels.make_model(options), pixels.make_model(options, FREE, more)
    few = pixels.make_model(options, FREE, keys(TOPK=2))
    assert few.state_dict().keys() == ranked.state_dict().keys() == plain.state_dict().keys()
    samples = [pixels.sample(0), pixels.sample(1)]
    results = [evaluate(model, samples) for model in (plain, ranked, few)]
    with torch.no_grad():
        logits = outputs_of(plain.eval(), plain.preprocess(samples).tensor).logits[-1]
    wanted = logits.double().softmax(1).flatten(2).amax(2)
    for i, (one, all_, two) in enumerate(zip(*results, strict=True)):
        torch.testing.assert_close(all_["sem_seg"], one["sem_seg"], atol=1e-5, rtol=1e-4)
        assert all_["sem_seg_labels"].equal(one["sem_seg_labels"])
        scores = all_["ranking"]["scores"].sigmoid().double()
        torch.testing.assert_close(scores, wanted[i], atol=1e-4, rtol=1e-3)
        assert two["sem_seg_classes"].equal(wanted[i].argsort(descending=True)[:2])


def test_a_pooled_map_ranks_by_its_cells():
    options = pixels.FAMILIES["per pixel"]
    model = pixels.make_model(options, FREE, keys(TOPK=2, POOL=2)).eval()
    outputs = outputs_of(model, FRAMES)
    cells = torch.nn.functional.adaptive_avg_pool2d(outputs.pixels, 2).flatten(2).mT
    logits = cells @ outputs.classes[-1].mT + outputs.bias
    expected = best_probabilities(logits)
    torch.testing.assert_close(outputs.scores.sigmoid().double(), expected, atol=1e-5, rtol=1e-4)


# Training


@EACH
@IMAGE_AND_VIDEO
@pytest.mark.parametrize("scores", ["masks", "both"])
@pytest.mark.parametrize("k", [1, CLASSES])
def test_every_ranker_trains_with_and_without_objects(kind, video, scores, k):
    options = keys(SCORES=scores, TOPK=k, GATE=0.5)
    model = make_model(kind, video, RANKSEG, options)
    assert hasattr(model, "ml_head") == (scores == "both")
    samples = [make_sample(model, 0, labels=range(CLASSES)), make_sample(model, 1, labels=[])]
    losses = train(model, samples)
    assert ("loss_ml" in losses) == (scores == "both")
    assert all(loss.isfinite() for loss in losses.values())
    if k == CLASSES:
        assert without_gradient(model) == []
    assert all(scores_of(result).isfinite().all() for result in evaluate(model, samples))


def test_head_and_masks_are_added_and_only_the_head_learns_from_their_loss():
    model = make_model(MASK2FORMER, RANKSEG, keys(SCORES="both", SCORE_WEIGHTS=[0.5, 2.0])).train()
    samples = [image_sample(0), image_sample(1, labels=[0])]
    clips = model.preprocess(samples)
    outputs = model.run_network(clips)
    masks = model.score_by_masks(outputs)
    torch.testing.assert_close(outputs.scores, 0.5 * outputs.head_scores + 2 * masks)
    assert outputs.head_scores.requires_grad and not outputs.scores.requires_grad
    targets = model.prepare_targets(samples, clips)
    present = multi_hot([target["labels"] for target in targets], CLASSES)
    loss = model.losses(outputs, targets)["loss_ml"]
    torch.testing.assert_close(loss, 10 * asymmetric_loss(outputs.head_scores, present))
    loss.backward()
    assert model.ml_head.fc.W.grad.any()
    assert model.sem_seg_head.predictor.class_embed.weight.grad is None


def test_scores_of_the_head_alone_are_those_of_before():
    model = make_model(MASK2FORMER, RANKSEG).eval()
    outputs = outputs_of(model, FRAMES)
    assert outputs.scores is outputs.head_scores
    torch.testing.assert_close(outputs.scores, model.score(outputs))


def test_masks_of_the_cosine_classifier_rank_by_the_norm_of_all_categories():
    model = make_model(MASK2FORMER, RANKSEG, keys(SCORES="masks")).eval()
    outputs = outputs_of(model, FRAMES)
    weight = model.sem_seg_head.predictor.class_embed.weight
    cosines = torch.cosine_similarity(outputs.queries[-1][:, :, None], weight, dim=-1)
    expected = best_probabilities(model.ml_norm.unranked(cosines))
    torch.testing.assert_close(outputs.scores.sigmoid().double(), expected, atol=1e-5, rtol=1e-4)


def test_training_follows_the_schedule_by_the_iteration_of_the_storage():
    options = keys(TOPK=2, TOPK_SCHEDULE=[[0, 6], [4, 2]])
    model = make_model(MASK2FORMER, RANKSEG, options).train()
    assert model.ml_norm.normalized_shape == (7,)  # 6 ranks and no-object
    seen = []
    model.criterion.register_forward_pre_hook(lambda _, args: seen.append(args[0].logits.shape[-1]))
    for iteration in (0, 2, 3, 4, 9):
        with EventStorage(iteration):
            model([image_sample()])
    assert seen == [7, 5, 4, 3, 3]
    assert [len(x["ranking"]["classes"]) for x in evaluate(model, [image_sample()])] == [2]


@pytest.mark.parametrize("scores", ["head", "masks", "both"])
def test_random_absent_categories_enter_the_losses_of_regions_and_pixels(scores):
    options = keys(KEEP_TRUE=True, RANDOM_SHARE=1.0, SCORES=scores, TOPK=4)
    regions = make_model(MASK2FORMER, RANKSEG, options)
    family = pixels.FAMILIES["per pixel"] | pixels.rankseg("per pixel", SHARE_EMBEDDING=False)
    for model, sample in (
        (regions, image_sample(0, labels=[1, 3])),
        (pixels.make_model(family, options), pixels.sample(0, classes=2)),
    ):
        losses = [train(model, [sample]) for _ in range(2)]  # both from one seed
        assert all(loss.isfinite() for loss in losses[0].values())
        assert all(losses[0][name].equal(losses[1][name]) for name in losses[0])


@EACH
@pytest.mark.parametrize("scores", ["masks", "both"])
def test_mixed_precision_trains_and_ranks(kind, scores):
    model = make_model(kind, RANKSEG, keys(SCORES=scores, GATE=1.0))
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(model, [image_sample(0), image_sample(1, labels=[])])
        results = evaluate(model, [image_sample(0)])
    assert all(loss.isfinite() for loss in losses.values())
    assert results[0]["ranking"]["scores"].isfinite().all()


# Everything that ranks


@pytest.mark.slow
def test_a_compiled_network_ranks_the_same():
    model = make_model(MASK2FORMER, RANKSEG, keys(SCORES="both"))
    wanted = evaluate(model, [image_sample()])[0]["ranking"]
    model.compile(fullgraph=True, backend="eager")
    ranking = evaluate(model, [image_sample()])[0]["ranking"]
    torch.testing.assert_close(ranking["scores"], wanted["scores"])


def test_windows_of_an_image_share_the_best_scores_of_any_window():
    model = make_model(MASK2FORMER, FREE, keys(TOPK=3)).eval()
    result = SlidingWindow(model, (64, 64), (64, 32))([{"image": picture()}])[0]
    crops = [{"image": picture()[:, :, left : left + 64]} for left in (0, 32)]
    scores = torch.stack([evaluate(model, [crop])[0]["ranking"]["scores"] for crop in crops])
    torch.testing.assert_close(result["ranking"]["scores"], scores.amax(0))
    assert len(result["ranking"]["classes"]) == 3


def test_the_oracle_needs_neither_head_nor_masks():
    options = keys(USE_GT=True, SCORES="both", GATE=1.0, TOPK_SCHEDULE=[[0, 5], [9, 3]])
    model = make_model(MASK2FORMER, RANKSEG, options)
    assert not hasattr(model, "ml_head") and "loss_ml" not in train(model, [image_sample()])
    result = evaluate(model, [image_sample(labels=[5, 1])])[0]
    assert result["ranking"]["classes"].tolist() == [1, 5]


# Errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"SCORES": "mask"}, KeyError, r"RANKSEG\.SCORES: 'mask' .*nearest names are masks"),
        (
            {"SCORES": "both", "SCORE_WEIGHTS": [0.0, 1.0]},
            ValueError,
            r"RANKSEG\.SCORE_WEIGHTS must be two numbers above 0; got \[0\.0, 1\.0\]\. .*SCORES",
        ),
        (
            {"TOPK_SCHEDULE": [[0, 8], [9, 4]]},
            ValueError,
            r"each κ of MODEL\.RANKSEG\.TOPK_SCHEDULE must be in \[1, 7\], the number of classes; "
            r"got 8\.",
        ),
        ({"TOPK_SCHEDULE": [[9, 4], [0, 4]]}, ValueError, r"TOPK_SCHEDULE must have rising iter"),
        (
            {"RANDOM_SHARE": 0.5},
            ValueError,
            r"RANDOM_SHARE is 0\.5, but .*; set MODEL\.RANKSEG\.KEEP_TRUE True",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        build_model(make_config(MASK2FORMER, RANKSEG, keys(**options)))


@pytest.mark.parametrize("family", pixels.REFINING)
@pytest.mark.parametrize("scores", ["masks", "both"])
def test_masks_of_classes_that_change_with_the_ranking_are_refused(family, scores):
    options = pixels.FAMILIES[family] | pixels.rankseg(family, SCORES=scores)  # the block head
    message = rf"SCORES {scores} needs class logits before the ranking, but those of Segmenter\w+ "
    with pytest.raises(ValueError, match=message):
        build_model(make_config(options))
