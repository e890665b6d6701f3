"""What holds for every ranking, with ties, thresholds and kept categories, drawn by hypothesis."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_d2.ranking import (
    LOW_LOGIT,
    rank,
    rank_from_labels,
    relabel,
    relabel_map,
    restore,
    restrict,
    restrict_embeddings,
    spread,
)

VALUES = [-2.0, -0.5, 0.0, 0.25, 0.5, 3.0]  # few, so that many are equal
properties = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def asked(draw):
    """Arguments of `rank`."""
    B, C = draw(st.integers(1, 3)), draw(st.integers(1, 9))

    def table(values):
        rows = draw(st.lists(values, min_size=B * C, max_size=B * C))
        return torch.tensor(rows).view(B, C)

    keep = table(st.booleans()) if draw(st.booleans()) else None
    threshold = draw(st.none() | st.sampled_from(VALUES))
    return table(st.sampled_from(VALUES)), draw(st.integers(1, C)), threshold, keep


@st.composite
def rankings(draw):
    """A ranking of scores, or of the oracle."""
    scores, k, threshold, keep = draw(asked())
    if draw(st.booleans()):
        return rank_from_labels(scores > 0, k)
    return rank(scores, k, threshold, keep)


def ranked(ranking, image):
    """{category: its rank}, of an image's valid ranks."""
    valid = [True] * ranking.K if ranking.valid is None else ranking.valid[image].tolist()
    index = ranking.index[image].tolist()
    return {c: r for r, (c, is_valid) in enumerate(zip(index, valid, strict=True)) if is_valid}


def label_maps(ranking):
    """Every id in each image, and three values that are none: (B, C + 3)."""
    ids = torch.tensor([*range(ranking.C), 255, 65535, -1])
    return ids.expand(len(ranking.index), -1)


@properties
@given(asked())
def test_a_ranking_is_what_a_sorted_list_says(arguments):
    scores, k, threshold, keep = arguments
    ranking = rank(*arguments)
    for image, row in enumerate(scores.tolist()):
        kept = [False] * len(row) if keep is None else keep[image].tolist()
        chosen = sorted(range(len(row)), key=lambda c: (not kept[c], -row[c], c))[:k]
        expected = sorted(chosen, key=lambda c: (-row[c], c))
        assert ranking.index[image].tolist() == expected
        assert ranked(ranking, image) == {
            c: r
            for r, c in enumerate(expected)
            if threshold is None or row[c] > threshold or kept[c] or r == 0
        }


@properties
@given(rankings())
def test_labels_come_back_from_their_ranks_and_others_are_dropped(ranking):
    labels = torch.arange(ranking.C)
    for image in range(len(ranking.index)):
        valid = None if ranking.valid is None else ranking.valid[image]
        ranks, keep = relabel(labels, ranking.index[image], valid)
        assert labels[keep].tolist() == sorted(ranked(ranking, image))
        assert (ranks[~keep] == ranking.K).all()
        back = restore(ranks[None], ranking.image(image))[0]
        assert back.tolist() == labels.where(keep, ranking.C).tolist()


@properties
@given(rankings())
def test_label_maps_come_back_from_their_ranks_and_the_rest_is_ignored(ranking):
    labels = label_maps(ranking)
    ranks = relabel_map(labels, ranking)
    back = restore(ranks.where(ranks != 255, ranking.K), ranking)
    for image, row in enumerate(labels.tolist()):
        known = ranked(ranking, image)
        assert ranks[image].tolist() == [known.get(c, 255) for c in row]
        assert back[image].tolist() == [c if c in known else ranking.C for c in row]


@properties
@given(rankings())
def test_restricted_logits_spread_out_again_where_they_came_from(ranking):
    B, C = ranking.scores.shape
    logits = torch.arange(B * 2 * (C + 1.0)).view(B, 2, C + 1)
    kept = restrict(logits, ranking)
    assert torch.equal(kept[..., -1], logits[..., -1])
    full = spread(kept[..., :-1].transpose(1, 2), ranking, fill=LOW_LOGIT).transpose(1, 2)
    for image in range(B):
        is_ranked = torch.tensor([c in ranked(ranking, image) for c in range(C)])
        expected = logits[image, :, :-1].masked_fill(~is_ranked, LOW_LOGIT)
        assert torch.equal(full[image], expected)


@properties
@given(rankings())
def test_embeddings_are_those_of_the_ranked_categories(ranking):
    weight = torch.arange(ranking.C + 1.0)[:, None]
    rows = restrict_embeddings(weight, ranking).squeeze(-1)
    no_object = torch.full((len(rows), 1), ranking.C)
    assert rows.tolist() == torch.cat([ranking.index, no_object], 1).tolist()
