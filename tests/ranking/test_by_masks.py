import math

import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.ranking import Ranker, RankNorm, by_masks, mask_scores, rank


@pytest.mark.parametrize("no_object", [True, False])
def test_scores_are_logits_of_the_largest_probabilities(no_object):
    features, weight = torch.randn(3, 10, 8), torch.randn(7 + no_object, 8)
    scores = mask_scores(lambda part: part @ weight.T, features, 7)
    for image, row in zip(features.double(), scores, strict=True):
        for c in range(7):
            chances = []
            for feature in image:
                values = [math.exp(feature @ one) for one in weight.double()]
                chances.append(values[c] / sum(values))
            assert row[c].sigmoid().item() == pytest.approx(max(chances), rel=1e-4)


def test_parts_give_what_the_whole_gives(monkeypatch):
    features, weight = torch.randn(2, 50, 8), torch.randn(7, 8)
    counts = []

    def classify(part):
        counts.append(part.shape[1])
        return part @ weight.T

    whole = mask_scores(classify, features, 7)
    monkeypatch.setattr(by_masks, "_VALUES", 7 * 12)
    torch.testing.assert_close(mask_scores(classify, features, 7), whole)
    assert counts == [50, 12, 12, 12, 12, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_are_finite_and_distinct_however_sure_the_classifier_is(dtype):
    logits = torch.tensor([[[90.0, -80, -90, -100, 0]]], dtype=dtype)
    scores = mask_scores(lambda part: logits, torch.zeros(1, 1, 2), 4)
    assert scores.dtype == torch.float32 and scores.isfinite().all()
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)
    assert len(scores.unique()) == 4


def test_no_gradient_comes_back():
    features, weight = torch.randn(1, 5, 8, requires_grad=True), torch.randn(7, 8)
    assert not mask_scores(lambda part: part @ weight.T, features, 7).requires_grad


@pytest.mark.parametrize("no_object", [True, False])
def test_a_norm_before_the_ranking_has_the_mean_weight_of_the_ranks(no_object):
    norm = RankNorm(3, no_object)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 4 + no_object))
        norm.bias.copy_(torch.arange(4.0 + no_object)[1:] / 10)
    logits = torch.randn(2, 5, 7 + no_object)
    weight = torch.tensor([2.0] * 7 + [4.0] * no_object)
    bias = torch.tensor([0.2] * 7 + [0.4] * no_object)
    expected = (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, False, keepdim=True)
    torch.testing.assert_close(
        norm.unranked(logits), expected * weight + bias, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("no_object", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_gate_adds_log_probabilities_of_the_ranks_alone(no_object, threshold):
    scores = torch.randn(2, 7, requires_grad=True)
    features, weight = torch.randn(2, 5, 8), torch.randn(7 + no_object, 8)
    ranking = Ranker(4, threshold).rank(scores)
    plain = Ranker(4).classify(features, weight, None, ranking, None)
    gated = Ranker(4, gate=1.5).classify(features, weight, None, ranking, None)
    assert not gated.requires_grad  # the class loss does not train the scores
    for i, row in enumerate(ranking.index.tolist()):
        for place, category in enumerate(row):
            added = 1.5 * math.log(scores[i, category].sigmoid().item())
            expected = plain[i, :, place] + added
            torch.testing.assert_close(gated[i, :, place], expected, atol=1e-3, rtol=1e-4)
    if no_object:
        assert gated[..., -1].equal(plain[..., -1])


def test_a_gate_of_logits_that_are_already_low_stays_finite_in_half_precision():
    ranking = rank(torch.full((1, 3), -200.0), 2, threshold=0.0)
    features, weight = torch.randn(1, 5, 8).half(), torch.randn(4, 8).half()
    logits = Ranker(2, gate=1.0, cosine=False).classify(features, weight, None, ranking, None)
    assert logits.isfinite().all() and F.softmax(logits, -1).isfinite().all()


def test_the_oracle_has_no_gate():
    present = torch.tensor([[0.0, 1, 1, 0]])
    features, weight = torch.randn(1, 5, 8), torch.randn(5, 8)
    ranker = Ranker(3, oracle=True)
    gated = Ranker(3, oracle=True, gate=2.0)
    ranking = ranker.rank(present)
    plain = ranker.classify(features, weight, None, ranking, None)
    assert gated.classify(features, weight, None, ranking, None).equal(plain)
