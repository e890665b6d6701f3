"""allow, deny, prior, topk, threshold and recall act before the best κ are taken."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.predicting import (
    ALL,
    NAMES,
    PIXELS,
    by_hand,
    make_predictor,
    pixels,
    ranking_predictor,
)
from support.small import KINDS, RANKSEG

from rankseg_d2.predict import Predictor
from rankseg_d2.ranking import Calibration
from rankseg_d2.ranking.conformal import Rule

DENIED = ["Road", "sky", "car"]
NUMBERS = [0, 1, 2]


def ranked_by_hand(predictor, image, **changes):
    """The output of a model whose ranker has these options, and the model as before."""
    ranker = predictor.model.ranker
    predictor.model.ranker = replace(ranker, **changes)
    output = by_hand(predictor, image)
    predictor.model.ranker = ranker
    return output


def mask(*numbers):
    return torch.isin(torch.arange(len(NAMES)), torch.tensor(numbers))


def kept(result):
    return [one.name for one in result.categories if one.kept]


def scores_of(predictor, image):
    """Logits of the multi-label head, (C,)."""
    return by_hand(predictor, image)["ranking"]["scores"]


@pytest.mark.parametrize("kind", [KINDS["mask2former"], PIXELS])
def test_denied_classes_are_excluded_before_the_best_are_taken(kind):
    predictor, image = ranking_predictor(kind=kind), pixels(1)
    wanted = ranked_by_hand(predictor, image, excluded=mask(*NUMBERS))
    result = predictor(image, deny=DENIED)
    np.testing.assert_array_equal(result.semantic, wanted["sem_seg_labels"].numpy())
    assert set(result.names) <= set(NAMES) - {"road", "sky", "car"}
    order = [n for n in scores_of(predictor, image).argsort(descending=True).tolist() if n > 2]
    assert kept(result) == [NAMES[n] for n in order]  # 4 places for 4 classes: none is lost
    assert result.excluded == ("road", "sky", "car")


def test_allow_is_to_deny_the_others():
    for predictor in (ranking_predictor(), make_predictor(), make_predictor(kind=PIXELS)):
        allowed = predictor(pixels(1), allow=["bus", "tree", "DOG", "cat"])
        denied = predictor(pixels(1), deny=DENIED)
        np.testing.assert_array_equal(allowed.semantic, denied.semantic)
        assert allowed.excluded == denied.excluded
        both = predictor(pixels(1), allow=["sky", "bus"], deny=["sky"])
        assert both.names == ("bus",) and len(both.excluded) == 6
        assert predictor(pixels(1), allow="bus").names == ("bus",)


def test_without_a_ranking_the_softmax_is_over_the_other_classes():
    predictor, image = make_predictor(), pixels(2)
    model, seen = predictor.model, {}
    result_of = model.result
    model.result = lambda out, i, sizes: (
        seen.update(out=out, sizes=sizes) or result_of(out, i, sizes)
    )
    result = predictor(image, deny=DENIED)
    logits, masks = seen["out"].logits[-1, 0], seen["out"].masks[-1][0][:, 0]
    weights = logits[:, [3, 4, 5, 6, 7]].softmax(-1)[:, :-1]  # no-object is last
    sizes = seen["sizes"]
    masks = torch.nn.functional.interpolate(masks[None], sizes.padded, mode="bilinear").sigmoid()
    masks = masks[..., : sizes.image[0], : sizes.image[1]]
    masks = torch.nn.functional.interpolate(masks, sizes.output, mode="bilinear")[0]
    labels = torch.einsum("qc,qhw->chw", weights, masks).argmax(0) + 3
    np.testing.assert_array_equal(result.semantic, labels.numpy())
    assert result.likely_excluded == () and result.excluded == ("road", "sky", "car")


def test_per_pixel_models_take_the_best_of_the_other_classes():
    predictor, image = make_predictor(kind=PIXELS), pixels(2)
    scores = by_hand(predictor, image)["sem_seg"]
    result = predictor(image, deny=DENIED)
    np.testing.assert_array_equal(result.semantic, scores[3:].argmax(0).numpy() + 3)


def test_segments_and_instances_have_no_denied_class():
    for options in ({}, RANKSEG):
        result = make_predictor(ALL, options)(pixels(), deny=["car", "bus", "road"])
        assert not {s["name"] for s in result.panoptic.segments} & {"car", "bus", "road"}
        assert not set(result.instances.categories.tolist()) & {0, 2, 3}
        assert len(result.instances) > 0


def test_prior_multiplies_the_odds():
    predictor, image = ranking_predictor(), pixels(1)
    factors = {"tree": 50, "dog": 0.01}
    added = torch.tensor([0, 0, 0, 0, np.log(50), np.log(0.01), 0], dtype=torch.float32)
    wanted = ranked_by_hand(predictor, image, prior=added)
    result = predictor(image, prior=factors)
    np.testing.assert_array_equal(result.semantic, wanted["sem_seg_labels"].numpy())
    plain = {one.name: one.probability for one in predictor(image).categories}
    changed = {one.name: one.probability for one in result.categories}
    for name in NAMES:
        odds = [p[name] / (1 - p[name]) for p in (plain, changed)]
        assert odds[1] / odds[0] == pytest.approx(factors.get(name, 1), rel=1e-3)


@pytest.mark.parametrize("topk", [1, 2, 4])
def test_topk_keeps_so_many(topk):
    predictor, image = ranking_predictor(), pixels(1)
    result = predictor(image, topk=topk)
    wanted = ranked_by_hand(predictor, image, topk=topk)
    np.testing.assert_array_equal(result.semantic, wanted["sem_seg_labels"].numpy())
    best = scores_of(predictor, image).argsort(descending=True)[:topk].tolist()
    assert kept(result) == [NAMES[n] for n in best]


def test_threshold_keeps_what_is_above_it_and_always_the_best():
    predictor, image = ranking_predictor(), pixels(1)
    chances = scores_of(predictor, image).sigmoid()
    for threshold in (0.01, 0.2, 0.9999):
        result = predictor(image, threshold=threshold)
        count = max(1, min(4, int((chances > threshold).sum())))
        assert len(kept(result)) == count
        wanted = ranked_by_hand(predictor, image, threshold=threshold)
        np.testing.assert_array_equal(result.semantic, wanted["sem_seg_labels"].numpy())


def rule(**changes):
    more = {"unit": "categories", "images": 100, "observed_recall": 0.95, "kept": 2.0}
    return Rule(**({"recall": 0.9, "topk": 2, "threshold": None} | more | changes))


def test_recall_takes_the_stored_rule_alone():
    predictor = ranking_predictor({"MODEL.RANKSEG.THRESHOLD": 0.9})
    rules = (rule(), rule(recall=0.99, topk=3))
    calibrated = Predictor(
        predictor.model, predictor.cfg, predictor.classes, calibration=Calibration(rules=rules)
    )
    image = pixels(1)
    assert len(kept(calibrated(image))) < 2  # by the threshold of the config
    for recall, topk in ((0.8, 2), (0.9, 2), (0.95, 3), (0.99, 3)):
        assert len(kept(calibrated(image, recall=recall))) == topk
    with pytest.raises(ValueError, match=r"no rule by topk for a recall of 0\.999"):
        calibrated(image, recall=0.999)
    with pytest.raises(ValueError, match="give recall, or topk and threshold, not both"):
        calibrated(image, recall=0.9, topk=2)
    with pytest.raises(ValueError, match="recall needs a model that `rankseg-d2 kappa"):
        predictor(image, recall=0.9)


def test_categories_have_calibrated_probabilities():
    predictor, image = ranking_predictor(), pixels(1)
    bias = tuple(np.linspace(-2, 1, len(NAMES)))
    calibration = Calibration(2.0, bias)
    calibrated = Predictor(
        predictor.model, predictor.cfg, predictor.classes, calibration=calibration
    )
    scores = scores_of(predictor, image).double().numpy()
    result = calibrated(image, prior={"cat": 3})
    for one in result.categories:
        logit = scores[one.number] / 2 + bias[one.number] + np.log(3) * (one.name == "cat")
        assert one.probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


def test_an_excluded_category_that_is_likely_there_is_said():
    predictor, image = ranking_predictor(), pixels(1)
    best = kept(predictor(image))[0]
    assert predictor(image).likely_excluded == ()
    result = predictor(image, deny=[best])
    assert result.likely_excluded == (best,) == result.excluded
    assert result.categories[0].name == best and not result.categories[0].kept
    bias = tuple(-50.0 for _ in NAMES)
    sure = Predictor(
        predictor.model, predictor.cfg, predictor.classes, calibration=Calibration(1.0, bias)
    )
    assert sure(image, deny=[best]).likely_excluded == ()


def test_one_name_stands_for_all_classes_that_have_it():
    rows = [{"name": name} for name in ["road", "car", "Car", "bus", "tree", "dog", "cat"]]
    result = make_predictor(rows=rows)(pixels(), deny=["car"])
    assert result.excluded == ("car", "Car")


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"deny": ["buss"]}, "deny: 'buss' is not known; the nearest names are bus"),
        ({"allow": ["sky", "Cra"]}, "allow: 'Cra' is not known; the nearest names are car"),
        ({"prior": {"tre": 2}}, "prior: 'tre' is not known; the nearest names are tree"),
        ({"deny": [3]}, "deny: '3' is not known"),
    ],
)
def test_unknown_names_are_told_with_near_ones(wishes, message):
    for predictor in (ranking_predictor(), make_predictor()):
        if "prior" in wishes and not predictor.model.ranks:
            continue
        with pytest.raises(KeyError, match=message):
            predictor(pixels(), **wishes)


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"deny": NAMES}, "all classes are denied or not allowed; leave one"),
        ({"allow": ["sky"], "deny": ["sky"]}, "all classes are denied"),
        ({"allow": []}, "all classes are denied"),
        ({"topk": 5}, r"topk must be in \[1, 4\], up to the κ .* trained with; got 5"),
        ({"topk": 0}, r"topk must be in \[1, 4\].*got 0"),
        ({"topk": 2.5}, r"topk must be in \[1, 4\].*got 2\.5"),
        ({"threshold": 1}, "threshold must be a probability between 0 and 1; got 1"),
        ({"prior": {"sky": 0}}, "the factor of sky must be a number above 0, not 0; .* use deny"),
        ({"prior": {"sky": "much"}}, "the factor of sky must be a number above 0, not 'much'"),
    ],
)
def test_wishes_that_cannot_be(wishes, message):
    with pytest.raises(ValueError, match=message):
        ranking_predictor()(pixels(), **wishes)


@pytest.mark.parametrize(
    "wish", [{"topk": 2}, {"threshold": 0.1}, {"prior": {"sky": 2}}, {"recall": 0.9}]
)
def test_what_needs_a_ranking_says_so(wish):
    (name,) = wish
    with pytest.raises(ValueError, match=f"{name} needs a model that ranks .* MaskFormer does not"):
        make_predictor()(pixels(), **wish)


def test_an_empty_prior_and_no_wishes_change_nothing():
    predictor = make_predictor()
    wanted = predictor(pixels()).semantic
    np.testing.assert_array_equal(predictor(pixels(), deny=(), prior=None).semantic, wanted)
