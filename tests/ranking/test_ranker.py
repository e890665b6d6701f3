"""Rankings in which categories are excluded or made more likely."""

from dataclasses import replace

import pytest
import torch

from rankseg_d2.ranking import Ranker

SCORES = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0], [-1.0, 0.0, 1.0, 2.0, 3.0]])


def mask(*ids, num_classes=5):
    return torch.tensor([i in ids for i in range(num_classes)])


def kept(ranking):
    """The categories of each image, best first."""
    valid = torch.ones_like(ranking.index, dtype=torch.bool)
    valid = valid if ranking.valid is None else ranking.valid
    return [row[some].tolist() for row, some in zip(ranking.index, valid, strict=True)]


@pytest.mark.parametrize("threshold", [None, 0.1])
def test_freed_ranks_go_to_the_next_categories(threshold):
    ranker = Ranker(3, threshold)
    assert kept(ranker.rank(SCORES)) == [[0, 1, 2], [4, 3, 2]]
    ranking = replace(ranker, excluded=mask(1, 4)).rank(SCORES)
    assert kept(ranking) == [[0, 2, 3], [3, 2, 0]]
    assert ranking.scores.equal(SCORES)  # of the excluded ones too


def test_ranks_for_which_no_category_is_left_are_invalid():
    ranking = Ranker(3, excluded=mask(0, 1, 2, 4)).rank(SCORES)
    assert ranking.valid.tolist() == [[True, False, False]] * 2
    assert kept(ranking) == [[3], [3]]


def test_the_best_allowed_category_is_kept_below_the_threshold():
    assert kept(Ranker(3, 0.9, excluded=mask(0, 1, 3, 4)).rank(SCORES)) == [[2], [2]]


def test_a_prior_moves_categories_in_the_ranking():
    prior = torch.tensor([0.0, 0.0, 0.0, 2.5, 0.0])  # the odds times e^2.5
    ranking = Ranker(2, prior=prior).rank(SCORES)
    assert kept(ranking) == [[0, 3], [3, 4]]
    torch.testing.assert_close(ranking.scores, SCORES + prior)


def test_the_oracle_keeps_no_excluded_category():
    present = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]])
    assert kept(Ranker(4, oracle=True, excluded=mask(2)).rank(present)) == [[0, 3]]
