"""The choice of κ and threshold against brute force, and its guarantee in random splits."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_d2.ranking import (
    Ranker,
    Rule,
    choose_threshold,
    choose_topk,
    image_shares,
    images_needed,
)

SPLITS = 1000
properties = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def pool(seed, images=2000, classes=12):
    """Scores that tell something of what is present, and pixels; float32 as of a model."""
    random = np.random.default_rng(seed)
    chance = random.uniform(0.02, 0.5, classes)
    present = random.random((images, classes)) < chance
    scores = random.normal(size=(images, classes)) + 1.5 * present + np.log(chance)
    pixels = random.integers(1, 1000, (images, classes)) * present
    return torch.from_numpy(scores).float(), torch.from_numpy(present), torch.from_numpy(pixels)


def kept_by(scores, rule):
    """Which categories a model keeps under the rule: (N, C) bool."""
    ranking = Ranker(rule.topk, rule.threshold or None).rank(scores)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    valid = torch.ones_like(ranking.index, dtype=torch.bool)
    return kept.scatter(1, ranking.index, valid if ranking.valid is None else ranking.valid)


def risks(scores, shares, rule):
    return ((~kept_by(scores, rule)) * shares).sum(1)


def bound(scores, shares, rule):
    """n / (n + 1) * risk + 1 / (n + 1)."""
    total, n = risks(scores, shares, rule).sum().item(), len(scores)
    return (total + 1) / (n + 1)


def split_means(scores, shares, choose, recall, n, seed=1):
    """The mean risk of 100 held-out images in each of SPLITS random splits."""
    random, means = np.random.default_rng(seed), []
    for _ in range(SPLITS):
        order = torch.from_numpy(random.permutation(len(scores))[: n + 100])
        chosen, new = order[:n], order[n:]
        rule = choose(scores[chosen], shares[chosen], recall, scores.shape[1])
        means.append(risks(scores[new], shares[new], rule).mean().item())
    return np.array(means)


ALPHA, N = 0.15, 20  # so few images that a choice without the correction fails


@pytest.mark.parametrize("choose", [choose_topk, choose_threshold])
@pytest.mark.parametrize("kind", ["categories", "pixels", "one category"])
def test_the_guarantee_holds_in_1000_splits(choose, kind):
    shares, scores = shares_of(kind)
    means = split_means(scores, shares, choose, 1 - ALPHA, N)
    error = means.std() / math.sqrt(SPLITS)
    assert means.mean() <= ALPHA + 3 * error
    if choose is choose_threshold:  # it is not much too careful: theory says 2 / (n + 1) at most
        assert means.mean() >= ALPHA - 2 / (N + 1) - 3 * error


def test_the_guarantee_needs_its_correction():
    """The highest threshold whose mean risk on the n images is at most α breaks the expectation."""
    shares, scores = shares_of("one category")
    recall = 1 - (ALPHA * N + 1) / (N + 1)  # undoes it
    means = split_means(scores, shares, choose_threshold, recall, N)
    assert means.mean() > ALPHA + 3 * means.std() / math.sqrt(SPLITS)


def shares_of(kind):
    scores, present, pixels = pool(0)
    if kind == "one category":  # of each image, so that its risk is 0 or 1
        present &= present.cumsum(1) == 1
    return image_shares(present, pixels if kind == "pixels" else None), scores


@st.composite
def labelled(draw):
    """Scores with many ties, shares of what is present, and a κ; some images have no category."""
    N, C = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    cells = N * C
    scores = draw(st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 40.0]),
                           min_size=cells, max_size=cells))  # fmt: skip
    pixels = draw(st.lists(st.integers(0, 3), min_size=cells, max_size=cells))
    pixels = torch.tensor(pixels).view(N, C)
    by_pixels = draw(st.booleans())
    shares = image_shares(pixels > 0, pixels if by_pixels else None)
    return torch.tensor(scores).view(N, C), shares, draw(st.integers(1, C))


RECALLS = st.sampled_from([0.05, 0.3, 0.5, 0.75, 0.9])


@properties
@given(labelled(), RECALLS)
def test_kappa_is_the_smallest_that_is_enough(data, recall):
    scores, shares, topk = data
    rules = [Rule(recall, k, None, "categories", 1, 1.0, 1.0) for k in range(1, topk + 1)]
    enough = [rule.topk for rule in rules if bound(scores, shares, rule) <= 1 - recall + 1e-9]
    if not enough:
        with pytest.raises(ValueError):
            choose_topk(scores, shares, recall, topk)
        return
    assert choose_topk(scores, shares, recall, topk).topk == min(enough)


@properties
@given(labelled(), RECALLS)
def test_the_threshold_is_the_highest_that_is_enough(data, recall):
    scores, shares, topk = data
    rules = {
        threshold: Rule(recall, topk, threshold, "categories", 1, 1.0, 1.0)
        for threshold in [0.0, *(scores.sigmoid().unique() * (1 - 1e-5)).tolist(), 1 - 1e-6]
    }
    enough = [t for t, rule in rules.items() if bound(scores, shares, rule) <= 1 - recall + 1e-9]
    if not enough:
        with pytest.raises(ValueError):
            choose_threshold(scores, shares, recall, topk)
        return
    chosen = choose_threshold(scores, shares, recall, topk)
    assert chosen.threshold == pytest.approx(max(enough), rel=2e-5)
    assert torch.equal(kept_by(scores, chosen), kept_by(scores, rules[max(enough)]))


@properties
@given(labelled(), RECALLS, RECALLS)
def test_a_higher_recall_keeps_more(data, first, second):
    scores, shares, topk = data
    low, high = sorted([first, second])
    for choose in (choose_topk, choose_threshold):
        try:
            more = choose(scores, shares, high, topk)
        except ValueError:
            continue
        less = choose(scores, shares, low, topk)
        assert (kept_by(scores, less) <= kept_by(scores, more)).all()
        assert less.kept <= more.kept and less.observed_recall <= more.observed_recall


@pytest.mark.parametrize("choose", [choose_topk, choose_threshold])
def test_a_rule_tells_what_it_does_on_its_images(choose):
    scores, present, pixels = pool(2, images=150)
    rule = choose(scores, image_shares(present, pixels), 0.9, 12, "pixels")
    kept = kept_by(scores, rule)
    share = (kept * pixels).sum(1) / pixels.sum(1)
    assert rule.observed_recall == pytest.approx(share.nanmean().item(), abs=1e-6)
    assert rule.kept == pytest.approx(kept.sum(1).double().mean().item())
    assert (rule.unit, rule.images) == ("pixels", 150)
    assert "at least 90 % of the image's pixels" in rule.sentence()
    assert Rule(**json.loads(json.dumps(rule.to_json()))) == rule


def test_an_image_without_a_category_has_risk_0():
    scores, present, _ = pool(3, images=100)
    present[:50] = False
    shares = image_shares(present)
    assert shares[:50].eq(0).all() and shares[50:][present[50:].any(1)].sum(1).allclose(
        torch.ones(1).double()
    )
    with_empty = choose_topk(scores, shares, 0.9, 12)
    assert with_empty.topk <= choose_topk(scores[50:], shares[50:], 0.9, 12).topk
    nothing = choose_threshold(scores, torch.zeros_like(shares), 0.9, 12)
    assert nothing.threshold > 0.99 and nothing.observed_recall == 1


def test_how_many_images_a_recall_needs():
    assert [images_needed(recall) for recall in (0.5, 0.9, 0.95, 0.99, 0.999)] == [
        1, 9, 19, 99, 999,
    ]  # fmt: skip
    scores, present, _ = pool(4, images=19)
    shares = image_shares(present)
    assert choose_topk(scores, shares, 0.95, 12).topk >= 1
    with pytest.raises(ValueError, match="0.95 needs at least 19 labelled images.* are 18.*0.947"):
        choose_topk(scores[:18], shares[:18], 0.95, 12)


@pytest.mark.parametrize("choose", [choose_topk, choose_threshold])
def test_bad_input_is_told(choose):
    scores, present, _ = pool(5, images=40)
    shares = image_shares(present)
    for recall in (0, 1, 1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            choose(scores, shares, recall, 12)
    with pytest.raises(ValueError, match="all 2 categories .* at most 0.[0-9]+ on these 40"):
        choose(scores, shares, 0.95, 2)
    with pytest.raises(ValueError, match=r"got \(40, 12\) and \(39, 12\)"):
        choose(scores, shares[1:], 0.5, 12)
    with pytest.raises(ValueError, match="NaN"):
        choose(scores / scores.new_zeros(()) * 0, shares, 0.5, 12)
    with pytest.raises(ValueError, match=r"k must be in \[1, 12\]"):
        choose(scores, shares, 0.5, 13)
    with pytest.raises(ValueError, match="not of 'objects'"):
        choose(scores, shares, 0.5, 12, "objects")
    with pytest.raises(ValueError, match="numbers of pixels"):
        image_shares(present, -torch.ones_like(scores))
