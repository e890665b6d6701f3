from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.paths import GOLDEN

from rankseg_d2.modeling.results import ResultOptions, Sizes, mask_result
from rankseg_d2.ranking import Ranking, rank, rank_from_labels, restrict, spread

C, Q = 7, 9
image_result = partial(mask_result, is_video=False)
video_result = partial(mask_result, is_video=True)
SHAPE = Sizes(padded=(32, 48), image=(25, 43), output=(31, 29))
THINGS = frozenset({0, 2, 3})
ALL = ResultOptions(
    panoptic=True,
    instance=True,
    object_mask_threshold=0.3,
    overlap_threshold=0.5,
    resize_first=True,
    detections_per_image=12,
    detections_per_video=6,
    thing_ids=THINGS,
)
SEMANTIC = ResultOptions()
INSTANCE = replace(ALL, semantic=False, panoptic=False)
PANOPTIC = replace(ALL, semantic=False, instance=False)


def predictions(seed=0, queries=Q, frames=1, num_classes=C):
    """Sure class logits (Q, C+1) and smooth masks (Q, T, 8, 12)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(queries, num_classes + 1, generator=generator)
    masks = 6 * torch.randn(queries, frames, 3, 4, generator=generator)
    return logits, F.interpolate(masks, (8, 12), mode="bilinear", align_corners=False)


def random_ranking(k, seed=1, threshold=None):
    return rank(torch.randn(1, C, generator=torch.Generator().manual_seed(seed)), k, threshold)


def ranked(k=4, threshold=None, seed=0, frames=1):
    """Predictions of a model that ranks."""
    ranking = random_ranking(k, threshold=threshold)
    logits, masks = predictions(seed, frames=frames)
    return restrict(logits[None], ranking)[0], masks, ranking


def plain_resize(image, size):
    return F.interpolate(image[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def plain_mask(mask, shape):
    """One mask (h, w) at the output's size."""
    mask = plain_resize(mask, shape.padded)
    return plain_resize(mask[: shape.image[0], : shape.image[1]], shape.output)


def plain_semantic(logits, masks, shape, resize_first):
    """Scores (C, H, W), one category and one query at a time."""
    probabilities = logits.softmax(1)
    scores = []
    for c in range(logits.shape[1] - 1):
        score = 0
        for q in range(len(logits)):
            if resize_first:
                score = score + probabilities[q, c] * plain_mask(masks[q, 0], shape).sigmoid()
            else:
                mask = plain_resize(masks[q, 0], shape.padded).sigmoid()
                score = score + probabilities[q, c] * mask
        if not resize_first:
            score = plain_resize(score[: shape.image[0], : shape.image[1]], shape.output)
        scores.append(score)
    return torch.stack(scores)


def plain_panoptic(logits, masks, shape, options):
    """Ids and segments, one query and one pixel at a time."""
    no_object = logits.shape[1] - 1
    kept = []
    for q, row in enumerate(logits.softmax(1).tolist()):
        category = max(range(len(row)), key=row.__getitem__)
        if category != no_object and row[category] > options.object_mask_threshold:
            mask = plain_mask(masks[q, 0], shape).sigmoid()
            kept.append((category, row[category], mask))
    height, width = shape.output
    ids = torch.zeros(height, width, dtype=torch.int32)
    won = [[] for _ in kept]
    for y in range(height):
        for x in range(width):
            values = [float(score * mask[y, x]) for _, score, mask in kept]
            if values:
                won[values.index(max(values))].append((y, x))
    segments, stuff, scores = [], {}, {}
    for (category, probability, mask), pixels in zip(kept, won, strict=True):
        area = int((mask >= 0.5).sum())
        left = [(y, x) for y, x in pixels if mask[y, x] >= 0.5 or not options.covered_only]
        if not left or not area or len(pixels) / area < options.overlap_threshold:
            continue
        is_thing = category in options.thing_ids
        if not is_thing and category in stuff:
            number = stuff[category]
        else:
            number = len(segments) + 1
            stuff.setdefault(category, number)
            segments.append({"id": number, "isthing": is_thing, "category_id": category})
        certainty = float(mask[mask >= 0.5].mean())
        scores.setdefault(number, []).extend([probability * certainty] * len(left))
        for y, x in left:
            ids[y, x] = number
    for segment in segments:
        of_pixels = scores[segment["id"]]
        segment["score"] = pytest.approx(sum(of_pixels) / len(of_pixels), abs=1e-5)
    return ids, segments


def plain_instances(logits, masks, shape, count, only=None):
    """(score, category, mask) of the best pairs, best first."""
    probabilities = logits.softmax(1)[:, :-1]
    pairs = [
        (float(p), q, c) for q, row in enumerate(probabilities) for c, p in enumerate(row)
    ]
    found = []
    for probability, q, c in sorted(pairs, reverse=True)[:count]:
        if only is None or c in only:
            mask = plain_mask(masks[q, 0], shape)
            inside = mask > 0
            certainty = mask.sigmoid()[inside].mean() if inside.any() else torch.tensor(0.0)
            found.append((probability * float(certainty), c, inside))
    return sorted(found, key=lambda one: -one[0])


def rounded(segments):
    """Segments to compare with, whose scores may differ by rounding."""
    return [s | {"score": pytest.approx(s["score"], abs=1e-4)} for s in segments]


def assert_same(one, other):
    """Results of two ways, up to rounding."""
    assert one.keys() == other.keys()
    for name in one.keys() - {"panoptic_seg", "instances", "image_size"}:
        torch.testing.assert_close(one[name], other[name], msg=lambda text, n=name: f"{n}: {text}")
    if "panoptic_seg" in one:
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        assert one["panoptic_seg"][1] == rounded(other["panoptic_seg"][1])
    if "instances" in one:
        a, b = one["instances"], other["instances"]
        assert torch.equal(a.pred_masks, b.pred_masks)
        assert torch.equal(a.pred_classes, b.pred_classes)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores)


# semantic


@pytest.mark.parametrize("resize_first", [False, True])
def test_semantic_scores_equal_a_plain_loop(resize_first):
    logits, masks = predictions()
    result = image_result(logits, masks, None, SHAPE, replace(SEMANTIC, resize_first=resize_first))
    expected = plain_semantic(logits, masks, SHAPE, resize_first)
    torch.testing.assert_close(result["sem_seg"], expected, atol=1e-5, rtol=0)
    assert torch.equal(result["sem_seg_labels"], result["sem_seg"].argmax(0))
    assert result.keys() == {"sem_seg", "sem_seg_labels"}


def test_when_masks_are_resized_matters():
    logits, masks = predictions()
    before = image_result(logits, masks, None, SHAPE, replace(SEMANTIC, resize_first=True))
    after = image_result(logits, masks, None, SHAPE, SEMANTIC)
    assert (before["sem_seg"] - after["sem_seg"]).abs().max() > 0.01


def test_padding_is_left_out():
    logits, masks = predictions()
    inside, outside = masks.clone(), masks.clone()
    outside[..., -1] = 50.0  # seen from column 42 of 48 on
    shape = Sizes((32, 48), (32, 40), (32, 40))
    results = [image_result(logits, m, None, shape, SEMANTIC) for m in (inside, outside)]
    assert torch.equal(results[0]["sem_seg"], results[1]["sem_seg"])
    assert results[0]["sem_seg"].shape == (C, 32, 40)


def test_ranked_result_is_k_maps_their_ids_and_a_label_map():
    logits, masks, ranking = ranked(k=4)
    result = image_result(logits, masks, ranking, SHAPE, SEMANTIC)
    assert result.keys() == {"sem_seg_scores", "sem_seg_classes", "sem_seg_labels"}
    assert result["sem_seg_scores"].shape == (4, *SHAPE.output)
    assert torch.equal(result["sem_seg_classes"], ranking.index[0])
    best = result["sem_seg_scores"].argmax(0)
    assert torch.equal(result["sem_seg_labels"], ranking.index[0][best])
    assert len(result["sem_seg_labels"].unique()) > 1


@pytest.mark.parametrize("threshold", [None, 0.1])
def test_full_scores_are_the_ranked_ones_and_zero_elsewhere(threshold):
    logits, masks, ranking = ranked(k=5, threshold=threshold)
    result = image_result(logits, masks, ranking, SHAPE, replace(SEMANTIC, full_scores=True))
    assert result["sem_seg"].shape == (C, *SHAPE.output)
    kept = result["sem_seg_classes"]
    assert torch.equal(result["sem_seg"][kept], result["sem_seg_scores"])
    rest = [c for c in range(C) if c not in kept.tolist()]
    assert rest and (result["sem_seg"][rest] == 0).all()
    assert torch.equal(result["sem_seg"].argmax(0), result["sem_seg_labels"])


def test_full_scores_equal_spread():
    logits, masks, ranking = ranked(k=3)
    result = image_result(logits, masks, ranking, SHAPE, replace(SEMANTIC, full_scores=True))
    assert torch.equal(result["sem_seg"], spread(result["sem_seg_scores"][None], ranking)[0])


# panoptic


@pytest.mark.parametrize("covered_only", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.3, 0.5), (0.6, 0.8)])
def test_panoptic_equals_a_plain_loop(seed, thresholds, covered_only):
    options = replace(
        PANOPTIC,
        object_mask_threshold=thresholds[0],
        overlap_threshold=thresholds[1],
        covered_only=covered_only,
    )
    logits, masks = predictions(seed)
    ids, segments = image_result(logits, masks, None, SHAPE, options)["panoptic_seg"]
    expected_ids, expected_segments = plain_panoptic(logits, masks, SHAPE, options)
    assert segments == expected_segments
    assert torch.equal(ids, expected_ids)
    assert ids.dtype == torch.int32
    assert segments or thresholds[0] > 0.5


def stripes(*columns, categories, scores=None):
    """Queries that are sure of one category each and of a mask from column x0 to x1 of 12."""
    logits = torch.full((len(columns), C + 1), -20.0)
    logits[range(len(columns)), categories] = 20.0
    if scores is not None:  # the rest is no-object's
        logits[:, -1] = 20.0 - torch.tensor(scores).logit()
    masks = torch.full((len(columns), 1, 8, 12), -20.0)
    for mask, (start, stop) in zip(masks, columns, strict=True):
        mask[..., start:stop] = 20.0
    return logits, masks, Sizes((8, 12), (8, 12), (8, 12))


def test_stuff_of_one_category_is_one_segment_and_things_are_many():
    prediction = stripes((0, 2), (2, 4), (4, 6), (6, 8), (8, 12), categories=[5, 0, 5, 0, 6])
    *prediction, shape = prediction
    ids, segments = image_result(*prediction, None, shape, PANOPTIC)["panoptic_seg"]
    assert ids[0].tolist() == [1, 1, 2, 2, 1, 1, 3, 3, 4, 4, 4, 4]
    assert [s["category_id"] for s in segments] == [5, 0, 0, 6]
    assert [s["isthing"] for s in segments] == [False, True, True, False]
    assert all(type(s["id"]) is int and type(s["isthing"]) is bool for s in segments)


def test_a_score_is_class_times_mask_and_that_of_shared_stuff_a_mean_over_pixels():
    columns, chances = [(0, 2), (2, 8), (8, 12)], [0.5, 0.9, 0.7]
    logits, masks, shape = stripes(*columns, categories=[5, 5, 0], scores=chances)
    masks[2] = masks[2].clamp(max=1.0)  # a mask that is less sure
    _, segments = image_result(logits, masks, None, shape, PANOPTIC)["panoptic_seg"]
    sure = torch.tensor(1.0).sigmoid().item()
    expected = [(2 * 0.5 + 6 * 0.9) / 8, 0.7 * sure]
    assert [s["score"] for s in segments] == pytest.approx(expected, rel=1e-5)
    assert all(type(s["score"]) is float for s in segments)


def test_a_segment_needs_its_share_of_the_mask():
    logits, masks, shape = stripes((0, 6), (2, 6), categories=[0, 1], scores=[0.5, 0.9])
    for overlap, kept in [(0.33, [0, 1]), (1 / 3, [0, 1]), (0.34, [1])]:
        options = replace(PANOPTIC, overlap_threshold=overlap)
        ids, segments = image_result(logits, masks, None, shape, options)["panoptic_seg"]
        assert [s["category_id"] for s in segments] == kept
        assert [s["id"] for s in segments] == list(range(1, len(kept) + 1))
        assert (ids[:, :2] == 0).all() == (0 not in kept)


def test_pixels_that_no_mask_covers_are_empty_in_mask2former_and_the_winners_in_maskformer():
    logits, masks, shape = stripes((0, 4), (0, 0), categories=[0, 1])
    for covered_only, outside in [(True, 0), (False, 1)]:
        options = replace(PANOPTIC, covered_only=covered_only)
        ids, segments = image_result(logits, masks, None, shape, options)["panoptic_seg"]
        assert (ids[:, :4] == 1).all() and (ids[:, 4:] == outside).all()
        assert [s["category_id"] for s in segments] == [0]


def test_queries_need_the_score_and_a_category():
    logits, masks, shape = stripes((0, 4), (4, 8), categories=[0, C])
    assert len(image_result(logits, masks, None, shape, PANOPTIC)["panoptic_seg"][1]) == 1
    strict = replace(PANOPTIC, object_mask_threshold=1.0)
    ids, segments = image_result(logits, masks, None, shape, strict)["panoptic_seg"]
    assert segments == [] and not ids.any() and ids.dtype == torch.int32
    assert ids.shape == shape.output


def test_panoptic_without_known_things_is_refused():
    options = replace(PANOPTIC, thing_ids=None)
    with pytest.raises(ValueError, match="PANOPTIC_ON.*thing_dataset_id_to_contiguous_id"):
        image_result(*predictions(), None, SHAPE, options)


def test_without_things_all_is_stuff():
    options = replace(PANOPTIC, thing_ids=frozenset())
    _, segments = image_result(*predictions(), None, SHAPE, options)["panoptic_seg"]
    assert segments and not any(s["isthing"] for s in segments)
    categories = [s["category_id"] for s in segments]
    assert len(categories) == len(set(categories))


# instances


@pytest.mark.parametrize("panoptic", [False, True])
@pytest.mark.parametrize("count", [1, 12, 1000])
def test_instances_equal_a_plain_loop(panoptic, count):
    logits, masks = predictions(3)
    options = replace(INSTANCE, panoptic=panoptic, detections_per_image=count)
    found = image_result(logits, masks, None, SHAPE, options)["instances"]
    expected = plain_instances(logits, masks, SHAPE, count, THINGS if panoptic else None)
    assert len(found) == len(expected)
    assert found.image_size == SHAPE.output
    torch.testing.assert_close(found.scores, torch.tensor([s for s, _, _ in expected]))
    assert found.pred_classes.tolist() == [c for _, c, _ in expected]
    masks = [mask for _, _, mask in expected]
    assert found.pred_masks.dtype == torch.bool
    assert torch.equal(found.pred_masks, torch.stack(masks) if masks else found.pred_masks)


def test_boxes_are_those_of_the_masks():
    found = image_result(*predictions(4), None, SHAPE, INSTANCE)["instances"]
    assert found.pred_masks.flatten(1).any(1).any()
    for mask, box in zip(found.pred_masks, found.pred_boxes.tensor.tolist(), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        expected = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
        assert box == (expected if len(x) else [0, 0, 0, 0])


def test_an_empty_mask_has_score_and_box_zero():
    logits, masks, shape = stripes((0, 0), (3, 5), categories=[0, 1])
    options = replace(INSTANCE, detections_per_image=2)
    found = image_result(logits, masks, None, shape, options)["instances"]
    assert found.pred_classes.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([1, 0])
    assert found.pred_boxes.tensor.tolist() == [[3, 0, 5, 8], [0, 0, 0, 0]]


def test_score_threshold_drops_the_low_ones():
    everything = image_result(*predictions(), None, SHAPE, INSTANCE)["instances"]
    threshold = float(everything.scores[4])
    options = replace(INSTANCE, score_threshold=threshold)
    found = image_result(*predictions(), None, SHAPE, options)["instances"]
    assert torch.equal(found.scores, everything.scores[:5])
    assert torch.equal(found.pred_masks, everything.pred_masks[:5])
    nothing = image_result(*predictions(), None, SHAPE, replace(INSTANCE, score_threshold=1.1))
    assert len(nothing["instances"]) == 0
    assert nothing["instances"].pred_masks.shape == (0, *SHAPE.output)
    assert nothing["instances"].pred_boxes.tensor.shape == (0, 4)


# videos


def test_golden_video_detections_of_the_reference():
    golden = np.load(GOLDEN / "video_result.npz")
    ranking = rank(torch.from_numpy(golden["scores"]), 124)
    logits = torch.from_numpy(golden["logits"])
    options = ResultOptions(semantic=False, instance=True)
    shape = Sizes((128, 160), (120, 150), (180, 230))
    result = video_result(logits, torch.zeros(100, 3, 32, 40), ranking, shape, options)
    torch.testing.assert_close(result["pred_scores"], torch.from_numpy(golden["pred_scores"]))
    assert result["pred_labels"].tolist() == golden["pred_labels"].tolist()
    assert result["pred_masks"].shape == (10, 3, 180, 230)
    assert result["image_size"] == (180, 230)


def test_one_frame_clip_equals_image():
    logits, masks, ranking = ranked()
    image = image_result(logits, masks, ranking, SHAPE, ALL)
    clip = video_result(logits, masks, ranking, SHAPE, ALL)
    assert torch.equal(clip["sem_seg_scores"][:, 0], image["sem_seg_scores"])
    assert torch.equal(clip["sem_seg_labels"][0], image["sem_seg_labels"])
    assert torch.equal(clip["panoptic_seg"][0][0], image["panoptic_seg"][0])
    assert clip["panoptic_seg"][1] == rounded(image["panoptic_seg"][1])


@pytest.mark.parametrize("resize_first", [False, True])
@pytest.mark.parametrize("height", [31, 481])
def test_semantic_frames_of_a_clip_are_images_to_the_last_bit(resize_first, height):
    logits, masks, ranking = ranked(frames=3)
    options = replace(SEMANTIC, resize_first=resize_first)
    shape = SHAPE._replace(output=(height, height - 2))
    clip = video_result(logits, masks, ranking, shape, options)
    for t in range(3):
        image = image_result(logits, masks[:, t : t + 1], ranking, shape, options)
        assert torch.equal(clip["sem_seg_scores"][:, t], image["sem_seg_scores"])
        assert torch.equal(clip["sem_seg_labels"][t], image["sem_seg_labels"])


def test_video_instances_are_the_best_pairs_over_all_frames():
    logits, masks = predictions(frames=3)
    result = video_result(logits, masks, None, SHAPE, INSTANCE)
    probabilities = logits.softmax(1)[:, :-1]
    scores, pairs = probabilities.flatten().sort(descending=True)
    torch.testing.assert_close(result["pred_scores"], scores[:6])
    assert result["pred_labels"].tolist() == (pairs[:6] % C).tolist()
    for mask, query in zip(result["pred_masks"], (pairs[:6] // C).tolist(), strict=True):
        for t in range(3):
            assert torch.equal(mask[t], plain_mask(masks[query, t], SHAPE) > 0)
    options = replace(INSTANCE, score_threshold=float(scores[2]), detections_per_video=2)
    assert len(video_result(logits, masks, None, SHAPE, options)["pred_scores"]) == 2
    options = replace(INSTANCE, score_threshold=float(scores[2]))
    assert len(video_result(logits, masks, None, SHAPE, options)["pred_scores"]) == 3


def test_panoptic_segments_of_a_clip_keep_their_id_over_time():
    logits, masks, shape = stripes((0, 4), (4, 8), categories=[0, 5])
    clip = torch.cat([masks, masks.roll(4, -1)], 1)  # (2, 2, 8, 12), two frames
    ids, segments = video_result(logits, clip, None, shape, PANOPTIC)["panoptic_seg"]
    assert ids[0, 0].tolist() == [1] * 4 + [2] * 4 + [0] * 4
    assert ids[1, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(segments) == 2


# with a ranking


@pytest.mark.parametrize("result_of", [image_result, video_result])
def test_ranking_all_categories_changes_nothing(result_of):
    logits, masks = predictions()
    identity = Ranking(torch.arange(C, 0, -1.0)[None], torch.arange(C)[None])
    options = replace(ALL, full_scores=True)
    with_ranking = result_of(logits, masks, identity, SHAPE, options)
    for name in ("sem_seg_scores", "sem_seg_classes"):
        with_ranking.pop(name)
    assert_same(with_ranking, result_of(logits, masks, None, SHAPE, ALL))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_fewer_categories_equal_all_without_the_others_columns(k):
    logits, masks, ranking = ranked(k)
    others = [c for c in range(C) if c not in ranking.index[0].tolist()]
    full_logits, _ = predictions()
    full_logits[:, others] = -float("inf")
    few = image_result(logits, masks, ranking, SHAPE, replace(ALL, full_scores=True))
    full = image_result(full_logits, masks, None, SHAPE, ALL)
    torch.testing.assert_close(few["sem_seg"], full["sem_seg"])
    assert torch.equal(few["sem_seg_labels"], full["sem_seg_labels"])
    assert torch.equal(few["panoptic_seg"][0], full["panoptic_seg"][0])
    assert few["panoptic_seg"][1] == rounded(full["panoptic_seg"][1])
    found = full["instances"]
    found = found[found.scores > 0]
    few = few["instances"][: len(found)]
    assert len(few) == len(found) > 0
    torch.testing.assert_close(few.scores, found.scores)
    assert torch.equal(few.pred_classes, found.pred_classes)


def test_the_order_of_ranks_does_not_change_results():
    logits, masks, ranking = ranked(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    other = Ranking(ranking.scores, ranking.index[:, order])
    other_logits = torch.cat([logits[:, order], logits[:, -1:]], 1)
    options = replace(ALL, full_scores=True)
    one = image_result(logits, masks, ranking, SHAPE, options)
    two = image_result(other_logits, masks, other, SHAPE, options)
    assert torch.equal(two.pop("sem_seg_classes"), one.pop("sem_seg_classes")[order])
    torch.testing.assert_close(two.pop("sem_seg_scores"), one.pop("sem_seg_scores")[order])
    assert_same(one, two)


@pytest.mark.parametrize("result_of", [image_result, video_result])
def test_invalid_places_never_win(result_of):
    ranking = random_ranking(5)
    valid = torch.tensor([[True, False, True, False, False]])
    ranking = replace(ranking, valid=valid)
    logits, masks = predictions()
    logits = restrict(logits[None], replace(ranking, valid=None))[0]  # nothing lowered
    kept = ranking.index[0, [0, 2]]
    options = replace(ALL, panoptic=False, full_scores=True, detections_per_video=1000)
    result = result_of(logits, masks, ranking, SHAPE, options)
    few = Ranking(ranking.scores, kept[None])
    expected = result_of(logits[:, [0, 2, 5]], masks, few, SHAPE, options)
    assert_same(result, expected)
    assert torch.equal(result["sem_seg_classes"], kept)
    assert set(result["sem_seg_labels"].unique().tolist()) <= set(kept.tolist())
    labels = result["pred_labels"] if "pred_labels" in result else result["instances"].pred_classes
    assert set(labels.tolist()) == set(kept.tolist())


@pytest.mark.parametrize("result_of", [image_result, video_result])
def test_an_image_whose_ranking_is_empty_has_no_results(result_of):
    ranking = rank_from_labels(torch.zeros(1, C, dtype=torch.bool), 3)
    logits, masks = predictions(num_classes=3)
    result = result_of(logits, masks, ranking, SHAPE, replace(ALL, full_scores=True))
    assert result["sem_seg_scores"].shape[0] == 0
    assert len(result["sem_seg_classes"]) == 0
    assert (result["sem_seg_labels"] == C).all()
    assert not result["sem_seg"].any() and result["sem_seg"].shape[0] == C
    assert result["panoptic_seg"][1] == [] and not result["panoptic_seg"][0].any()
    assert len(result["pred_scores"] if "pred_scores" in result else result["instances"]) == 0


# all of them


@pytest.mark.parametrize("result_of", [image_result, video_result])
@pytest.mark.parametrize("queries", [1, 2])
def test_one_category_one_pixel(result_of, queries):
    shape = Sizes((32, 32), (1, 1), (1, 1))
    ranking = rank(torch.tensor([[0.1, 0.9]]), 1)
    logits, masks = torch.tensor([[3.0, 0.0]] * queries), torch.ones(queries, 1, 1, 1)
    result = result_of(logits, masks, ranking, shape, ALL)
    labels = result["sem_seg_labels"]
    assert labels.numel() == 1 and labels.item() == 1
    ids, segments = result["panoptic_seg"]
    assert ids.numel() == 1 and ids.item() == 1
    score = logits[0].softmax(0)[0].item() * torch.tensor(1.0).sigmoid().item()
    expected = {"id": 1, "isthing": False, "category_id": 1, "score": pytest.approx(score)}
    assert segments == [expected]
    result = result_of(logits, masks, ranking, shape, INSTANCE)
    labels = result["pred_labels"] if "pred_labels" in result else result["instances"].pred_classes
    assert labels.tolist() == [1] * queries


def test_an_image_of_a_batch_is_as_if_alone():
    scores = torch.randn(3, C, generator=torch.Generator().manual_seed(2))
    batch = rank(scores, 4)
    logits, masks = predictions()
    columns = restrict(logits.expand(3, -1, -1), batch)
    for i in range(3):
        alone = rank(scores[i : i + 1], 4)
        one = image_result(columns[i], masks, batch.image(i), SHAPE, ALL)
        assert_same(one, image_result(restrict(logits[None], alone)[0], masks, alone, SHAPE, ALL))


def test_only_what_is_wanted_is_there():
    nothing = ResultOptions(semantic=False)
    assert image_result(*predictions(), None, SHAPE, nothing) == {}
    assert video_result(*predictions(), None, SHAPE, nothing) == {}
    assert image_result(*predictions(), None, SHAPE, PANOPTIC).keys() == {"panoptic_seg"}
    assert image_result(*predictions(), None, SHAPE, INSTANCE).keys() == {"instances"}


def test_inputs_are_left_as_they_are():
    shape = Sizes((8, 12), (8, 12), (8, 12))  # nothing to resize: the maps are the masks
    logits, masks = predictions()
    before = logits.clone(), masks.clone()
    image_result(logits, masks, None, shape, ALL)
    assert torch.equal(logits, before[0]) and torch.equal(masks, before[1])


def test_resizing_to_the_same_size_is_nothing():
    masks = torch.randn(2, 1, 8, 12)
    assert torch.equal(F.interpolate(masks, (8, 12), mode="bilinear", align_corners=False), masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, masks = (tensor.to(dtype) for tensor in predictions())
    expected = image_result(logits.float(), masks.float(), None, SHAPE, ALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(image_result(logits, masks, None, SHAPE, ALL), expected)


@pytest.mark.gpu
def test_gpu_gives_the_same():
    logits, masks, ranking = ranked()
    on_gpu = Ranking(ranking.scores.cuda(), ranking.index.cuda())
    result = image_result(logits.cuda(), masks.cuda(), on_gpu, SHAPE, ALL)
    expected = image_result(logits, masks, ranking, SHAPE, ALL)
    scores = result["sem_seg_scores"].cpu()
    torch.testing.assert_close(scores, expected["sem_seg_scores"], atol=1e-4, rtol=1e-4)
    assert result["panoptic_seg"][1] == rounded(expected["panoptic_seg"][1])
    wrong = result["panoptic_seg"][0].cpu() != expected["panoptic_seg"][0]
    assert wrong.float().mean() < 0.01
    assert result["instances"].pred_classes.tolist() == expected["instances"].pred_classes.tolist()


# Excluded classes


def test_excluded_classes_have_no_share_in_any_result():
    """As if the model had no such classes: softmax over the others."""
    logits, masks = predictions(queries=30)
    excluded = frozenset({1, 2})
    allowed = [c for c in range(C) if c not in excluded]
    options = replace(ALL, overlap_threshold=0.0)
    result = image_result(logits, masks, None, SHAPE, replace(options, excluded=excluded))
    things = frozenset(i for i, c in enumerate(allowed) if c in THINGS)
    few = replace(options, thing_ids=things)
    small = image_result(logits[:, [*allowed, C]], masks, None, SHAPE, few)
    assert result["sem_seg_classes"].tolist() == allowed
    torch.testing.assert_close(result["sem_seg_scores"], small["sem_seg"])
    table = torch.tensor(allowed)
    assert result["sem_seg_labels"].equal(table[small["sem_seg_labels"]])
    ids, segments = result["panoptic_seg"]
    assert ids.equal(small["panoptic_seg"][0]) and len(segments) > 1
    categories = [allowed[segment["category_id"]] for segment in small["panoptic_seg"][1]]
    assert [segment["category_id"] for segment in segments] == categories
    assert result["instances"].pred_classes.equal(table[small["instances"].pred_classes])
    torch.testing.assert_close(result["instances"].scores, small["instances"].scores)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("options", [SEMANTIC, replace(SEMANTIC, resize_first=True)])
def test_whole_maps_give_what_the_operation_gives(monkeypatch, options, frames):
    logits, masks, ranking = ranked(frames=frames)
    make = video_result if frames > 1 else image_result
    found = make(logits, masks, ranking, SHAPE, options)
    monkeypatch.setattr("rankseg_d2.modeling.results.segments.serves", lambda masks: False)
    expected = make(logits, masks, ranking, SHAPE, options)
    assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
    assert found["sem_seg_scores"].allclose(expected["sem_seg_scores"], atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_labels_alone_are_the_labels(monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr("rankseg_d2.modeling.results.segments.serves", lambda masks: False)
    alone = replace(SEMANTIC, semantic_scores=False, full_scores=True)
    logits, masks, ranking = ranked(frames=2)
    for make, maps in ((image_result, masks[:, :1]), (video_result, masks)):
        found = make(logits, maps, ranking, SHAPE, alone)
        expected = make(logits, maps, ranking, SHAPE, SEMANTIC)
        assert found.keys() == {"sem_seg_labels", "sem_seg_classes"}
        assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
    logits, masks = predictions()
    assert image_result(logits, masks, None, SHAPE, alone).keys() == {"sem_seg_labels"}
