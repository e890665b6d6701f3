"""Calibration of scores whose true temperature and biases are known."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.ranking import (
    Calibration,
    choose_threshold,
    choose_topk,
    fit_calibration,
    image_shares,
    reliability,
)

TEMPERATURE, BIAS = 2.5, torch.linspace(-1.5, 0.5, 8)


def miscalibrated(images=4000, seed=0):
    """Scores of which sigmoid(scores / TEMPERATURE + BIAS) is the truth, and what is present."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, len(BIAS), generator=generator) - 1
    present = torch.rand(logits.shape, generator=generator) < logits.sigmoid()
    return (logits - BIAS) * TEMPERATURE, present


def test_the_fit_recovers_temperature_and_biases_and_lowers_the_likelihood():
    scores, present = miscalibrated()
    calibration, before, after = fit_calibration(scores, present)
    assert calibration.temperature == pytest.approx(TEMPERATURE, rel=0.05)
    assert torch.tensor(calibration.bias).allclose(BIAS, atol=0.2)
    assert after.nll < before.nll - 0.1 and after.ece < before.ece / 5
    truth = F.binary_cross_entropy_with_logits(scores / TEMPERATURE + BIAS, present.float())
    assert after.nll <= truth.item() + 1e-4  # the best on these images
    new, new_present = miscalibrated(seed=1)
    logits = calibration.probabilities(new).logit()
    assert reliability(logits, new_present).nll < reliability(new, new_present).nll - 0.1


def test_the_fit_is_a_minimum_of_likelihood_and_prior():
    scores, present = miscalibrated(images=200)
    calibration, _, _ = fit_calibration(scores, present, strength=3.0)

    def loss(temperature, bias):
        logits = scores.double() / temperature + bias
        fit = F.binary_cross_entropy_with_logits(logits, present.double(), reduction="sum")
        prior = math.log(temperature) ** 2 + (bias - bias.mean()).square().sum()
        return (fit + 3.0 / 2 * prior).item()

    bias = torch.tensor(calibration.bias, dtype=torch.float64)
    best = loss(calibration.temperature, bias)
    for step in (-1e-3, 1e-3):
        assert loss(calibration.temperature * (1 + step), bias) > best
        for i in range(len(bias)):
            assert loss(calibration.temperature, bias + step * torch.eye(len(bias))[i]) > best


def test_categories_with_no_or_few_images_stay_sane():
    scores, present = miscalibrated(images=300)
    present[:, 0] = False  # in no image
    present[:, 1], present[5, 1] = False, True  # in one
    present[:, 2] = True  # in all
    calibration, _, _ = fit_calibration(scores, present)
    others = torch.tensor(calibration.bias[3:])
    assert all(abs(bias - others.mean()) < 6 for bias in calibration.bias[:3])
    few, _, _ = fit_calibration(scores[:3], torch.zeros(3, 8, dtype=torch.bool))
    assert all(map(math.isfinite, few.bias)) and 0.1 < few.temperature < 10


def test_scores_that_separate_perfectly_stay_finite():
    scores = torch.tensor([[4.0, -4.0], [-4.0, 4.0], [3.0, -2.0]])
    calibration, _, after = fit_calibration(scores, scores > 0)
    assert 0.01 < calibration.temperature < 1 and after.nll < 0.05


def test_reliability_counts_each_pair_once():
    scores, present = miscalibrated(images=50)
    found = reliability(scores, present, bins=4)
    p, y = scores.double().sigmoid().flatten().numpy(), present.flatten().numpy()
    ece, rows = 0.0, []
    for low in np.arange(4) / 4:
        inside = (p >= low) & (p < low + 0.25) if low < 0.75 else p >= low
        if inside.any():
            rows.append((p[inside].mean(), y[inside].mean(), inside.sum()))
            ece += abs(rows[-1][0] - rows[-1][1]) * inside.sum() / len(p)
    assert found.bins == tuple(pytest.approx(row) for row in rows)
    assert found.ece == pytest.approx(ece)
    assert found.nll == pytest.approx(-np.log(np.where(y, p, 1 - p)).mean())
    assert reliability(torch.full((1, 1), 1e4), torch.ones(1, 1)).bins == ((1.0, 1.0, 1),)
    json.dumps(found.to_json(), allow_nan=False)


def with_rules():
    scores, present = miscalibrated(images=300)
    shares = image_shares(present)
    rules = [choose_topk(scores, shares, recall, 8) for recall in (0.8, 0.9)]
    rules.append(choose_threshold(scores, shares, 0.9, 8))
    fitted, _, _ = fit_calibration(scores, present)
    return Calibration(fitted.temperature, fitted.bias, tuple(rules))


def test_a_calibration_survives_json():
    calibration = with_rules()
    text = json.dumps(calibration.to_json(), allow_nan=False)
    assert Calibration.from_json(json.loads(text)) == calibration
    assert Calibration.from_json(Calibration().to_json()) == Calibration()


def test_the_rule_of_the_next_higher_recall_is_given():
    calibration = with_rules()
    assert calibration.rule(0.8) == calibration.rules[0]
    assert calibration.rule(0.85) == calibration.rules[1]
    assert calibration.rule(0.5, by="threshold") == calibration.rules[2]
    with pytest.raises(ValueError, match="0.95 of the categories is stored; stored are 0.8, 0.9"):
        calibration.rule(0.95)
    with pytest.raises(ValueError, match="stored are none.*--of pixels --write"):
        calibration.rule(0.8, "pixels")
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.rule(1.0)


def test_probabilities_are_of_scores_with_the_same_categories():
    scores = torch.randn(2, 3)
    found = Calibration(2.0, (0.0, 1.0, -1.0)).probabilities(scores)
    assert found.allclose((scores / 2 + torch.tensor([0.0, 1.0, -1.0])).sigmoid())
    assert Calibration().probabilities(scores).equal(scores.sigmoid())
    with pytest.raises(ValueError, match="for 3 categories, but the scores are of 4"):
        Calibration(2.0, (0.0,) * 3).probabilities(torch.zeros(1, 4))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"temperature": 1.0, "bias": [], "rules": [{"recall": 0.9}]},
        {"temperature": [1], "bias": [], "rules": []},
        {"temperature": 1.0, "bias": 3, "rules": []},
    ],
)
def test_other_json_is_no_calibration(content):
    with pytest.raises(ValueError, match="no calibration of `rankseg-d2 kappa`"):
        Calibration.from_json(content)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0.0}, "temperature above 0"),
        ({"temperature": math.nan}, "temperature above 0"),
        ({"bias": (math.inf,)}, "finite biases"),
    ],
)
def test_a_calibration_has_finite_values(change, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"recall": 1.0}, "between 0 and 1"),
        ({"topk": 0}, "topk of a rule must be a whole number above 0"),
        ({"topk": 2.5}, "whole number"),
        ({"threshold": 1.0}, r"in \[0, 1\)"),
        ({"unit": "objects"}, "categories or pixels"),
    ],
)
def test_a_rule_has_values_that_a_ranker_takes(change, message):
    content = with_rules().to_json()
    content["rules"][0] |= change
    with pytest.raises(ValueError, match=message):
        Calibration.from_json(content)


def test_bad_scores_are_told():
    scores, present = miscalibrated(images=5)
    with pytest.raises(ValueError, match=r"got \(5, 8\) and \(4, 8\)"):
        fit_calibration(scores, present[1:])
    with pytest.raises(ValueError, match="with an image at least"):
        fit_calibration(scores[:0], present[:0])
    with pytest.raises(ValueError, match="not finite"):
        fit_calibration(scores.fill_(math.nan), present)
    with pytest.raises(ValueError, match="strength must be a number above 0"):
        fit_calibration(torch.zeros(1, 1), torch.zeros(1, 1), strength=0)
