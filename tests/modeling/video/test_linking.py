"""Links of objects over windows, against brute force and against objects that are known."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.modeling.video.linking import Found, Tracks, assign, likeness

DIM, FIELD = 16, 40


def features(count, seed=0):
    """Query features that have nothing in common: orthogonal rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))[0][:count]


def found(queries, heads=None, tails=None, scores=None, num_frames=4):
    nowhere = torch.zeros(len(queries), 0, dtype=torch.bool)
    heads = nowhere if heads is None else heads
    tails = nowhere if tails is None else tails
    return Found(queries, scores or [0.9] * len(queries), heads, tails, num_frames)


def at(*positions):
    """Masks (N, P) of bars of eight pixels; None: no pixel."""
    masks = torch.zeros(len(positions), FIELD, dtype=torch.bool)
    for mask, position in zip(masks, positions, strict=True):
        if position is not None:
            mask[position : position + 8] = True
    return masks


def tracker(threshold=0.5, patience=1, keep=100):
    return Tracks(threshold, patience, keep)


# Likeness


def test_likeness_is_the_mean_of_cosine_and_iou():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(6, DIM, generator=generator)
    others = torch.randn(4, DIM, generator=generator)
    masks = torch.rand(6, 2 * FIELD, generator=generator) > 0.5
    other_masks = torch.rand(4, 2 * FIELD, generator=generator) > 0.3
    masks[2] = False
    other_masks[1] = False
    comparable = torch.tensor([True, True, True, False])
    value = likeness(queries, others, masks, other_masks, comparable, 0.3)
    assert value.shape == (6, 4)
    for m in range(6):
        for n in range(4):
            a, b = queries[m].numpy().astype(float), others[n].numpy().astype(float)
            expected = a @ b / np.sqrt((a @ a) * (b @ b))
            union, iou = (masks[m] | other_masks[n]).sum().item(), 0.3
            if comparable[n] and union:
                iou = (masks[m] & other_masks[n]).sum().item() / union
            assert value[m, n].item() == pytest.approx((expected + iou) / 2, abs=1e-6)


def test_likeness_of_queries_of_zeros_is_a_number():
    none = torch.zeros(2, 0, dtype=torch.bool)
    comparable = torch.tensor([True, False])
    value = likeness(torch.zeros(2, 3), torch.ones(2, 3), none, none, comparable, 0.5)
    assert value.equal(torch.full((2, 2), 0.25))


def test_likeness_needs_no_single_precision():
    queries = features(3).bfloat16()
    none = torch.zeros(3, 0, dtype=torch.bool)
    value = likeness(queries, queries, none, none, torch.ones(3, dtype=torch.bool), 0.0)
    torch.testing.assert_close(value, torch.eye(3) / 2, atol=1e-2, rtol=0)


# Assignment


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (1, 1)])
def test_assignment_is_the_best_of_all(seed, shape):
    rows, columns = shape
    value = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    pairs = assign(value, 0.5)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(value[pair] > 0.5 for pair in pairs)

    def gain(pairs):
        return sum(max(0.0, value[pair].item() - 0.5) for pair in pairs)

    if rows <= columns:
        every = [list(enumerate(order)) for order in permutations(range(columns), rows)]
    else:
        orders = permutations(range(rows), columns)
        every = [[(row, column) for column, row in enumerate(order)] for order in orders]
    assert gain(pairs) == pytest.approx(max(map(gain, every)), abs=1e-6)


def test_a_good_pair_is_not_given_up_for_two_that_are_not_good_enough():
    value = torch.tensor([[0.9, 0.49], [0.49, 0.0]])
    assert assign(value, 0.5) == [(0, 0)]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_assigned_to_nothing(shape):
    assert assign(torch.zeros(shape), 0.5) == []


# Tracks


def test_objects_are_followed_through_changes_of_their_order():
    tracks, seen = tracker(), features(6)
    generator = torch.Generator().manual_seed(1)
    known = {}
    for _ in range(8):
        order = torch.randperm(6, generator=generator)
        noise = 0.05 * torch.randn(6, DIM, generator=generator)
        linked = tracks.link(found(seen[order] + noise))
        for number, track in zip(order.tolist(), linked, strict=True):
            assert known.setdefault(number, track) is track
    assert len(set(map(id, known.values()))) == len(tracks.all) == 6


def test_objects_that_look_alike_are_told_apart_by_their_places():
    same = features(1).repeat(2, 1)
    tracks = tracker()
    first = tracks.link(found(same, at(None, None), at(0, 20)))
    swapped = tracks.link(found(same, at(20, 0), at(12, 8)))  # they come close
    assert swapped[0] is first[1] and swapped[1] is first[0]
    crossed = tracks.link(found(same, at(9, 11), at(0, 20)))  # and went on
    assert crossed[0] is first[0] and crossed[1] is first[1]


def test_objects_that_cross_are_told_apart_by_their_looks():
    tracks, seen = tracker(), features(2)
    first = tracks.link(found(seen, at(None, None), at(12, 14)))
    crossed = tracks.link(found(seen.flip(0), at(13, 13), at(0, 30)))
    assert crossed[0] is first[1] and crossed[1] is first[0]


def test_an_object_elsewhere_in_the_shared_frames_is_another():
    tracks, seen = tracker(), features(1)
    alike = F.normalize(seen + 0.5 * features(2)[1:], dim=1)  # a cosine of 0.89
    first = tracks.link(found(seen, at(None), at(0)))
    assert tracks.link(found(alike, at(20), at(20)))[0] is not first[0]
    assert tracks.link(found(alike, at(20), at(20)))[0] is not first[0]
    assert len(tracks.all) == 2


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("missed", [0, 1, 2, 3, 4])
def test_an_object_comes_back_within_the_patience(missed, patience):
    tracks, seen = tracker(patience=patience), features(2)
    first = tracks.link(found(seen, at(None, None), at(0, 20)))
    for _ in range(missed):
        tracks.link(found(seen[:1], at(0), at(0)))
    # It comes from another side: where it was long ago says nothing.
    last = tracks.link(found(seen, at(0, 30 if missed else 20), at(0, 30)))
    assert last[0] is first[0]
    assert (last[1] is first[1]) == (missed <= patience)
    assert len(tracks.all) == (2 if missed <= patience else 3)


def test_an_object_that_stays_is_not_taken_for_its_twin_that_left():
    same, tracks = features(1).repeat(2, 1), tracker(patience=3)
    first = tracks.link(found(same, at(None, None), at(0, 20)))
    for _ in range(3):
        assert tracks.link(found(same[:1], at(19), at(20)))[0] is first[1]
    last = tracks.link(found(same, at(30, 20), at(30, 20)))  # the twin is back, elsewhere
    assert last[0] is first[0] and last[1] is first[1]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_without_masks_the_cosine_alone_must_exceed_the_threshold(threshold):
    for above in (-0.01, 0.01):
        cosine = threshold + above
        alike = torch.tensor([[cosine, (1 - cosine**2) ** 0.5]])
        tracks = tracker(threshold)
        first = tracks.link(found(torch.tensor([[1.0, 0.0]])))
        assert (tracks.link(found(alike)) == first) == (above > 0)


def test_new_objects_begin_tracks_of_their_own():
    tracks, seen = tracker(), features(4)
    first = tracks.link(found(seen[:2]))
    later = tracks.link(found(seen[[3, 0, 2, 1]]))
    assert later[1] is first[0] and later[3] is first[1]
    assert len({*map(id, later)}) == 4 == len(tracks.all)


def test_windows_without_objects_are_windows():
    tracks, seen = tracker(patience=1), features(1)
    assert tracks.link(found(seen[:0])) == []
    first = tracks.link(found(seen))
    assert tracks.link(found(seen[:0])) == []
    assert tracks.link(found(seen)) == first
    for _ in range(2):
        tracks.link(found(seen[:0]))
    assert tracks.link(found(seen)) != first


def test_a_track_has_the_mean_score_and_all_queries_of_its_windows():
    tracks, seen = tracker(), features(1)
    for score, frames in ((0.8, 6), (0.2, 2), (0.5, 4)):
        track = tracks.link(found(seen, scores=[score], num_frames=frames))[0]
    assert track.score == pytest.approx((0.8 * 6 + 0.2 * 2 + 0.5 * 4) / 12)
    assert track.weights == [6, 2, 4]
    assert torch.stack(track.queries).equal(seen.repeat(3, 1))


def test_only_the_best_of_the_tracks_that_are_over_are_kept():
    tracks, seen = tracker(patience=0, keep=3), features(8)
    scores = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.4, 0.6]
    for query, score in zip(seen, scores, strict=True):
        tracks.link(found(query[None], scores=[score]))
    kept = sorted(track.score for track in tracks.all)
    assert kept == [0.4, 0.6, 0.7, 0.8, 0.9]  # the last two are not over yet
