import doctest
from pathlib import Path

import pytest
import torch

import rankseg_d2.ranking
from rankseg_d2.ranking import (
    LOW_LOGIT,
    Ranking,
    keep_valid,
    rank,
    rank_from_labels,
    relabel,
    relabel_map,
    restore,
    restrict,
    restrict_embeddings,
    spread,
)

CASES = ["rankseg_swinb_like_sem", "video_rankseg_r50_vspw"]


def random_ranking(B=3, C=11, K=4, seed=0, dynamic=False):
    scores = torch.randn(B, C, generator=torch.Generator().manual_seed(seed))
    return rank(scores, K, threshold=0.8 if dynamic else None)


def test_example_in_the_package_docstring_runs():
    result = doctest.testmod(rankseg_d2.ranking)
    assert result.attempted >= 6
    assert result.failed == 0


def test_ranking_imports_no_detectron2():
    for file in Path(rankseg_d2.ranking.__file__).parent.glob("*.py"):
        assert "import detectron2" not in file.read_text()
        assert "from detectron2" not in file.read_text()


def test_rank_sorts_best_first_and_ties_by_lower_id():
    ranking = rank(torch.tensor([[0.1, 0.9, 0.5, 0.9, 0.5]]), 4)
    assert ranking.index.tolist() == [[1, 3, 2, 4]]
    assert (ranking.K, ranking.C, ranking.valid) == (4, 5, None)


@pytest.mark.parametrize(
    "keep, threshold, index, valid",
    [
        ([], None, [3, 1, 4], None),
        ([1, 3], None, [3, 1, 4], None),
        ([0, 2], None, [3, 2, 0], None),
        ([0, 2], 0.6, [3, 2, 0], [True, True, True]),
        ([0], 0.8, [3, 1, 0], [True, False, True]),
        ([0, 1, 2, 4], None, [1, 4, 2], None),  # more than κ: the best of them
        ([0, 1, 2, 4], 0.6, [1, 4, 2], [True] * 3),
    ],
)
def test_rank_keeps_what_it_is_asked_to_keep(keep, threshold, index, valid):
    scores, kept = torch.tensor([[0.1, 0.7, 0.2, 0.9, 0.5]]), torch.zeros(1, 5, dtype=torch.bool)
    kept[0, keep] = True
    ranking = rank(scores, 3, threshold, kept)
    assert ranking.index.tolist() == [index]
    assert valid is None if ranking.valid is None else ranking.valid.tolist() == [valid]


def test_equal_scores_are_ranked_by_id_whether_kept_or_not():
    keep = torch.tensor([[False, True, False, True, False]])
    assert rank(torch.zeros(1, 5), 4, keep=keep).index.tolist() == [[0, 1, 2, 3]]
    assert rank(torch.zeros(1, 5), 2, keep=keep).index.tolist() == [[1, 3]]


def test_ties_in_a_large_vocabulary_keep_id_order():
    ranking = rank(torch.zeros(2, 5000), 300)
    assert torch.equal(ranking.index, torch.arange(300).expand(2, -1))


@pytest.mark.parametrize("case", CASES)
def test_order_equals_golden(golden, case):
    scores, order = golden[f"{case}/scores"], golden[f"{case}/order"].long()
    for k in (1, 30, scores.shape[1]):
        assert torch.equal(rank(scores, k).index, order[:, :k])


def test_threshold_keeps_categories_above_it_and_always_the_best():
    scores = torch.tensor([[0.9, 0.2, 0.7, 0.5], [0.1, 0.2, 0.3, 0.0], [0.9, 0.9, 0.9, 0.9]])
    ranking = rank(scores, 3, threshold=0.5)
    assert ranking.index.tolist() == [[0, 2, 3], [2, 1, 0], [0, 1, 2]]
    assert ranking.valid.tolist() == [[True, True, False], [True, False, False], [True] * 3]


@pytest.mark.parametrize("k", [0, -1, 6])
def test_k_outside_1_to_c_names_the_number_of_categories(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 5\].* got {k}\."):
        rank(torch.zeros(1, 5), k)


def test_ranking_keeps_the_gradient_of_its_scores():
    scores = torch.randn(2, 5, requires_grad=True)
    assert rank(scores, 2).scores is scores


def test_image_is_a_ranking_of_one():
    ranking = random_ranking(dynamic=True)
    one = ranking.image(1)
    assert torch.equal(one.index, ranking.index[1:2])
    assert torch.equal(one.scores, ranking.scores[1:2])
    assert torch.equal(one.valid, ranking.valid[1:2])


def test_oracle_puts_present_categories_first_in_id_order():
    present = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    ranking = rank_from_labels(present, 3)
    assert ranking.index.tolist() == [[1, 4, 0], [0, 1, 2], [0, 1, 2]]
    assert ranking.valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_oracle_leaves_only_present_categories_and_no_object_a_probability():
    present = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    ranking = rank_from_labels(present, 5)
    logits = torch.randn(2, 7, 6) - 50  # far below zero: invalid ranks must be lower still
    prob = restrict(logits, ranking).softmax(-1)
    full = spread(prob[..., :-1].transpose(1, 2), ranking).transpose(1, 2)
    absent = torch.cat([~present, torch.zeros(2, 1, dtype=torch.bool)], 1)
    expected = logits.masked_fill(absent[:, None], -torch.inf).softmax(-1)
    torch.testing.assert_close(full, expected[..., :-1])
    torch.testing.assert_close(prob[..., -1], expected[..., -1])


@pytest.mark.parametrize("K", [1, 4, 11])
def test_restrict_gathers_the_ranked_columns_and_no_object(K):
    ranking = random_ranking(K=K)
    logits = torch.randn(3, 5, 12)
    kept = restrict(logits, ranking)
    assert kept.shape == (3, 5, K + 1)
    for b in range(3):
        for r, category in enumerate([*ranking.index[b].tolist(), 11]):
            assert torch.equal(kept[b, :, r], logits[b, :, category])


def test_restrict_takes_leading_dimensions():
    ranking = random_ranking(dynamic=True)
    logits = torch.randn(2, 3, 5, 12)
    one_by_one = torch.stack([restrict(layer, ranking) for layer in logits])
    assert torch.equal(restrict(logits, ranking), one_by_one)


def test_invalid_ranks_get_no_probability():
    ranking = random_ranking(dynamic=True)
    assert not ranking.valid.all()
    kept = restrict(torch.randn(3, 5, 12), ranking)
    invalid = ~ranking.valid[:, None].expand(-1, 5, -1)
    assert (kept[..., :-1][invalid] == LOW_LOGIT).all()
    assert (kept.softmax(-1)[..., :-1][invalid] == 0).all()
    assert torch.isfinite(kept.half()).all()


@pytest.mark.parametrize("case", CASES)
def test_restrict_equals_golden(golden, case):
    scores = golden[f"{case}/scores"]
    ranking = rank(scores, scores.shape[1])
    kept = restrict(golden[f"{case}/logits"], ranking)
    at = tuple(golden[f"{case}/ml_norm/final_in/at"].long())
    assert torch.equal(kept[at], golden[f"{case}/ml_norm/final_in/value"])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("no_object", [False, True])
def test_embeddings_restricted_before_equal_logits_restricted_after(dynamic, no_object):
    ranking = random_ranking(dynamic=dynamic)
    weight, queries = torch.randn(12, 8), torch.randn(3, 5, 8)
    expected = restrict(queries @ weight.t(), ranking)
    if not no_object:
        weight, expected = weight[:-1], expected[..., :-1]
    logits = queries @ restrict_embeddings(weight, ranking).transpose(1, 2)
    torch.testing.assert_close(keep_valid(logits, ranking), expected)


def test_restrict_passes_gradients_to_the_kept_columns_only():
    ranking = random_ranking()
    logits = torch.randn(3, 5, 12, requires_grad=True)
    restrict(logits, ranking).sum().backward()
    kept = torch.zeros(3, 12).scatter(1, ranking.index, 1.0)
    kept[:, -1] = 1
    assert torch.equal(logits.grad, kept[:, None].expand(-1, 5, -1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_relabel_gives_ranks_and_drops_labels_outside_the_ranking(dtype):
    labels = torch.tensor([7, 2, 9, 2, 0], dtype=dtype)
    ranks, keep = relabel(labels, torch.tensor([2, 0, 7]))
    assert keep.tolist() == [True, True, False, True, True]
    assert ranks.tolist() == [2, 0, 3, 0, 1]
    assert ranks.dtype == torch.int64


def test_relabel_drops_labels_at_invalid_ranks():
    ranks, keep = relabel(
        torch.tensor([7, 2]), torch.tensor([2, 0, 7]), torch.tensor([True, True, False])
    )
    assert keep.tolist() == [False, True]
    assert ranks.tolist() == [3, 0]


def test_relabel_without_labels_gives_nothing():
    ranks, keep = relabel(torch.zeros(0, dtype=torch.long), torch.tensor([2, 0, 7]))
    assert ranks.shape == keep.shape == (0,)


DTYPES = [(torch.uint8, 255), (torch.int16, -1), (torch.int32, 65535), (torch.int64, 255)]
if hasattr(torch, "uint16"):
    DTYPES.append((torch.uint16, 65535))


@pytest.mark.parametrize(("dtype", "ignore"), DTYPES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_relabel_map_equals_a_loop_over_pixels(dtype, ignore, dynamic):
    ranking = random_ranking(dynamic=dynamic)
    ids = torch.randint(0, 12, (3, 6, 7), generator=torch.Generator().manual_seed(1))
    ids[ids == 11] = ignore
    maps = relabel_map(ids.to(dtype), ranking, ignore)
    for b in range(3):
        kept = ranking.index[b].tolist()
        if dynamic:
            kept = [c for c, ok in zip(kept, ranking.valid[b].tolist(), strict=True) if ok]
        for pixel, r in zip(ids[b].flatten().tolist(), maps[b].flatten().tolist(), strict=True):
            assert r == (kept.index(pixel) if pixel in kept else ignore)


def test_relabel_map_refuses_an_ignore_value_that_is_a_category():
    ranking = rank(torch.randn(1, 847), 100)
    with pytest.raises(ValueError, match="ignore_index 255 is one of the 847 categories"):
        relabel_map(torch.zeros(1, 2, 2, dtype=torch.int32), ranking)
    assert relabel_map(torch.full((1, 2, 2), 65535), ranking, 65535).eq(65535).all()


def test_restore_undoes_relabel():
    ranking = random_ranking()
    ids = torch.randint(0, 11, (20,))
    for b in range(3):
        ranks, keep = relabel(ids, ranking.index[b])
        restored = restore(ranks[None], ranking.image(b))[0]
        assert torch.equal(restored[keep], ids[keep])
        assert (restored[~keep] == 11).all()


def test_restored_argmax_of_all_ranks_equals_argmax_of_all_classes():
    ranking = random_ranking(K=11)
    logits = torch.randn(3, 5, 12)
    restored = restore(restrict(logits, ranking).argmax(-1), ranking)
    assert torch.equal(restored, logits.argmax(-1))


@pytest.mark.parametrize("shape", [(), (6,), (5, 6)])
def test_spread_puts_each_map_at_its_category(shape):
    ranking = random_ranking(dynamic=True)
    maps = torch.randn(3, 4, *shape)
    full = spread(maps, ranking, fill=-100)
    expected = torch.full((3, 11, *shape), -100.0)
    for b in range(3):
        for r in range(4):
            if ranking.valid[b, r]:
                expected[b, ranking.index[b, r]] = maps[b, r]
    assert torch.equal(full, expected)


def test_spread_of_all_ranks_undoes_restrict():
    ranking = random_ranking(K=11)
    logits = torch.randn(3, 5, 12)
    full = spread(restrict(logits, ranking)[..., :-1].transpose(1, 2), ranking).transpose(1, 2)
    assert torch.equal(full, logits[..., :-1])


def test_spread_passes_gradients():
    ranking = random_ranking()
    maps = torch.randn(3, 4, 2, requires_grad=True)
    spread(maps, ranking).mul(2).sum().backward()
    assert (maps.grad == 2).all()


def test_batch_of_none_works():
    ranking = rank(torch.zeros(0, 11), 4)
    assert restrict(torch.zeros(0, 5, 12), ranking).shape == (0, 5, 5)
    assert restrict_embeddings(torch.zeros(12, 8), ranking).shape == (0, 5, 8)
    assert spread(torch.zeros(0, 4, 2, 3), ranking).shape == (0, 11, 2, 3)
    assert restore(torch.zeros(0, 5, dtype=torch.long), ranking).shape == (0, 5)
    assert relabel_map(torch.zeros(0, 2, 3), ranking).shape == (0, 2, 3)


def test_everything_is_traced_in_one_graph():
    def step(scores, logits, ids):
        ranking = rank(scores, 4, threshold=0.0)
        kept = restrict(logits, ranking)
        maps = spread(kept[..., :-1].transpose(1, 2), ranking)
        return restore(kept.argmax(-1), ranking), maps, relabel(ids, ranking.index[0])

    inputs = torch.randn(2, 11), torch.randn(2, 5, 12), torch.arange(6)
    explained = torch._dynamo.explain(step)(*inputs)
    assert explained.graph_break_count == 0, explained.break_reasons


def test_rankings_are_frozen():
    with pytest.raises(AttributeError):
        Ranking(torch.zeros(1, 2), torch.zeros(1, 1)).index = None
