import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_d2.ranking import Ranker, check_schedule, topk_at, with_absent

properties = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@st.composite
def steps(draw):
    """Scores (B, C) with ties, present categories (B, C), κ, a share of random ones, a seed."""
    B, C = draw(st.integers(1, 3)), draw(st.integers(1, 9))

    def table(values):
        return torch.tensor(draw(st.lists(values, min_size=B * C, max_size=B * C))).view(B, C)

    scores, present = table(st.sampled_from([-3.0, 0.0, 0.5, 2.0])), table(st.booleans())
    share = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    return scores, present, draw(st.integers(1, C)), share, draw(st.integers(0, 99))


@properties
@given(steps())
def test_a_kept_set_has_k_categories_by_score_and_the_true_ones(step):
    scores, present, k, share, seed = step
    ranker = Ranker(k, keep_true=True, random_share=share)
    torch.manual_seed(seed)
    ranking = ranker.rank_in_training(scores, present)
    assert ranking.index.shape == (len(scores), k) and ranking.valid is None
    for row, own, kept in zip(scores, present, ranking.index, strict=True):
        assert len(set(kept.tolist())) == k
        values = [(-row[c].item(), c) for c in kept.tolist()]
        assert values == sorted(values)  # by score, ties by lower id
        true = set(own.nonzero().flatten().tolist())
        if len(true) <= k:
            assert true <= set(kept.tolist())
        else:  # the best ones of them
            assert set(kept.tolist()) == set(sorted(true, key=lambda c: (-row[c].item(), c))[:k])
    torch.manual_seed(seed)
    assert ranker.rank_in_training(scores, present).index.equal(ranking.index)


@properties
@given(steps())
def test_the_best_absent_categories_have_the_places_that_are_not_random(step):
    scores, present, k, share, _ = step
    keep = with_absent(scores, present, k, share)
    for row, own, kept in zip(scores, present, keep, strict=True):
        left = max(k - int(own.sum()), 0)
        assert kept.sum() == own.sum() + left
        absent = sorted((~own).nonzero().flatten().tolist(), key=lambda c: (-row[c].item(), c))
        best = absent[: left - round(share * left)]
        assert kept[own].all() and kept[best].all()


def test_without_a_random_share_nothing_is_drawn():
    scores, present = torch.randn(2, 9), torch.rand(2, 9) > 0.7
    state = torch.get_rng_state()
    Ranker(4, keep_true=True).rank_in_training(scores, present)
    assert torch.get_rng_state().equal(state)


def test_random_categories_are_all_equally_likely():
    scores = torch.arange(10.0).expand(4000, 10)
    present = torch.zeros(4000, 10, dtype=torch.bool)
    present[:, 0] = True
    keep = with_absent(scores, present, 5, 0.5)  # 4 places: 2 for the best, 2 for others
    shares = keep.float().mean(dim=0)
    assert shares[[0, 8, 9]].tolist() == [1, 1, 1]
    torch.testing.assert_close(shares[1:8], torch.full((7,), 2 / 7), atol=0.04, rtol=0)


def test_random_categories_below_the_threshold_are_kept():
    scores, present = torch.tensor([[5.0, -5.0, -6.0, -7.0]]), torch.tensor([[False] * 4])
    ranker = Ranker(3, threshold=0.5, keep_true=True, random_share=0.7)
    ranking = ranker.rank_in_training(scores, present)
    assert ranking.valid.all() and ranking.index[0, 0] == 0


def test_the_oracle_keeps_what_is_present():
    present = torch.tensor([[False, True, False, True]])
    ranker = Ranker(3, oracle=True, keep_true=True, random_share=0.5)
    ranking = ranker.rank_in_training(present, present)
    assert ranking.index[ranking.valid].tolist() == [1, 3]


def test_a_schedule_is_linear_between_its_points_and_constant_outside():
    schedule = ((10, 100), (20, 50), (30, 20), (31, 5))
    values = {0: 100, 10: 100, 12: 90, 20: 50, 25: 35, 29: 23, 30: 20, 31: 5, 10**9: 5, None: 5}
    assert {iteration: topk_at(schedule, iteration) for iteration in values} == values
    assert topk_at(((5, 7),), 0) == topk_at(((5, 7),), 99) == 7


@properties
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True), st.integers(0, 60))
def test_a_schedule_stays_between_its_neighbours(iterations, iteration):
    points = [(i, 3 + (7 * i) % 40) for i in sorted(iterations)]
    check_schedule(points, 42)
    before = [k for i, k in points if i <= iteration][-1:] or [points[0][1]]
    after = [k for i, k in points if i > iteration][:1] or [points[-1][1]]
    assert min(before + after) <= topk_at(points, iteration) <= max(before + after)


def test_training_follows_the_schedule_and_inference_does_not():
    ranker = Ranker(3, schedule=((0, 8), (10, 2)))
    assert ranker.largest_topk == 8
    scores, present = torch.randn(1, 9), torch.zeros(1, 9)
    counts = [ranker.rank_in_training(scores, present, i).K for i in (0, 5, 10, 11)]
    assert counts == [8, 5, 2, 2]
    assert ranker.rank_in_training(scores, present).K == 2  # without an iteration: at its end
    assert ranker.rank(scores).K == 3


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([(0, 5), (9, 0)], r"each κ of schedule must be in \[1, 7\], the number .*; got 0\."),
        ([(0, 8)], r"each κ of schedule must be in \[1, 7\], the number of classes; got 8\."),
        ([(5, 3), (0, 4)], r"schedule must have rising iterations; got \[5, 0\]\."),
        ([(5, 3), (5, 4)], r"schedule must have rising iterations; got \[5, 5\]\."),
    ],
)
def test_schedules_that_leave_the_classes_or_time_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        check_schedule(schedule, 7)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"random_share must be in \[0, 1\]; got 1\.5"):
        Ranker(3, keep_true=True, random_share=1.5)
    with pytest.raises(ValueError, match=r"random_share needs keep_true"):
        Ranker(3, random_share=0.5)
    with pytest.raises(ValueError, match=r"each κ of schedule must be at least 1; got 0\."):
        Ranker(3, schedule=((0, 0),))
