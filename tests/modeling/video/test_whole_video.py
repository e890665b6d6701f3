"""Whole videos by windows, against clips that the model is given one by one."""

import numpy as np
import pytest
import torch
from support.small import CLASSES, KINDS, RANKSEG, picture, rectangles
from support.videos import (
    BOTH,
    INSTANCE,
    MODELS,
    ORACLE,
    SEMANTIC,
    SIZE,
    decoded,
    run,
    video,
    video_model,
    windowed,
)

from rankseg_d2.modeling.outputs import MaskPredictions
from rankseg_d2.modeling.passes.several import run_pass
from rankseg_d2.modeling.passes.sliding_window import SlidingWindow
from rankseg_d2.modeling.results.reading import label_maps
from rankseg_d2.modeling.results.segments import Classes
from rankseg_d2.modeling.video.linking import Found, Track
from rankseg_d2.modeling.video.whole_video import VideoRun, VideoScores
from rankseg_d2.modeling.video.windows import VideoWindows, plan
from rankseg_d2.ranking import rank


def assert_same_as_clip(found, clip):
    maps = label_maps(clip) if "sem_seg_labels" in clip else []
    assert len(found.get("sem_seg_frames", [])) == len(maps)
    for labels, expected in zip(found.get("sem_seg_frames", []), maps, strict=True):
        np.testing.assert_array_equal(labels, expected)
    if "pred_masks" in clip:
        assert found["pred_scores"].equal(clip["pred_scores"])
        assert found["pred_labels"].equal(clip["pred_labels"])
        assert found["image_size"] == clip["image_size"]
        for rles, masks in zip(found["pred_masks"], clip["pred_masks"], strict=True):
            np.testing.assert_array_equal(decoded(rles, masks.shape[1:]), masks.numpy())
    assert ("ranking" in found) == ("ranking" in clip)
    if "ranking" in clip:
        assert found["ranking"]["classes"].equal(clip["ranking"]["classes"])
        assert found["ranking"]["scores"].equal(clip["ranking"]["scores"])


# One window


@pytest.mark.parametrize("task", [SEMANTIC, INSTANCE, BOTH], ids=["semantic", "instance", "both"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", MODELS)
@pytest.mark.parametrize("ranking", ["running", "two_pass"])
def test_one_window_equals_the_clip(kind, ranks, task, ranking):
    model = video_model(MODELS[ranks], task, kind=KINDS[kind])
    sample = video(frames=3, height=50, width=70)
    clip = run(model, sample)[0]
    model.windows = VideoWindows(3, 1, ranking)
    found = run(model, sample)[0]
    assert_same_as_clip(found, clip)
    if "pred_masks" in clip:
        assert clip["pred_masks"].any()
    if "sem_seg_labels" in clip and kind == "mask2former":
        assert len(clip["sem_seg_labels"].unique()) > 1


@torch.no_grad()
def test_one_window_equals_the_clip_to_the_last_bit_with_few_objects():
    model = video_model(INSTANCE | {"MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": 2})
    model.sem_seg_head.predictor.class_embed.bias[-1] += 50  # no query is likely an object
    for first in range(0, 30, 3):
        sample = video(frames=3, first=first)
        model.windows = None
        clip = run(model, sample)[0]
        model.windows = VideoWindows(3, 1)
        assert_same_as_clip(run(model, sample)[0], clip)


def test_one_window_equals_the_clip_in_bfloat16():
    model = video_model(RANKSEG, BOTH)
    sample = video(frames=3)
    with torch.autocast("cpu", torch.bfloat16):
        clip = run(model, sample)[0]
        model.windows = VideoWindows(8, 1)
        assert_same_as_clip(run(model, sample)[0], clip)


@pytest.mark.parametrize("window", [2, 9])
def test_a_video_of_one_frame_equals_the_clip(window):
    model = video_model(RANKSEG, BOTH)
    clip = run(model, video(frames=1))[0]
    model.windows = VideoWindows(window, 1)
    assert_same_as_clip(run(model, video(frames=1))[0], clip)


def test_a_video_without_ranked_categories_has_no_objects():
    model = windowed(ORACLE | BOTH, 3, 1)
    result = run(model, video(labels=[]))[0]
    assert result["pred_masks"] == [] and len(result["pred_scores"]) == 0
    assert all((labels == CLASSES).all() for labels in result["sem_seg_frames"])
    assert len(result["ranking"]["classes"]) == 0


def test_frames_that_are_read_when_needed_are_a_clip_too():
    model = video_model(RANKSEG)
    lazy, held = video(frames=2), video(frames=2)
    held["image"] = list(held["image"])
    for way in (model, SlidingWindow(model, (32, 32), (20, 20))):
        found, expected = run(way, lazy)[0], run(way, held)[0]
        assert found["sem_seg_scores"].equal(expected["sem_seg_scores"])


# Several windows


@pytest.mark.parametrize(("ranking", "passes"), [("running", 1), ("two_pass", 2)])
def test_two_passes_read_every_frame_twice(ranking, passes):
    sample = video()
    run(windowed(RANKSEG, 3, 1, ranking=ranking), sample)
    assert sample["image"].reads == dict.fromkeys(range(7), passes)
    plain = video()
    run(windowed({}, 3, 1, ranking=ranking), plain)  # which has nothing to rank
    assert plain["image"].reads == dict.fromkeys(range(7), 1)


def seen_by(sample, seen):
    frames = sample["image"]
    return sample | {"image": [frames[i] for i in range(seen.start, seen.stop)]}


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_label_maps_are_those_of_the_windows(overlap):
    model = windowed({}, 4, overlap)
    sample = video(frames=11, height=30, width=44)
    found = run(model, sample)[0]
    assert found.keys() == {"sem_seg_frames"}
    model.windows = None
    for seen, own in plan(11, 4, overlap):
        clip = run(model, seen_by(sample, seen))[0]["sem_seg_labels"]
        for frame in range(own.start, own.stop):
            expected = clip[frame - seen.start].numpy()
            np.testing.assert_array_equal(found["sem_seg_frames"][frame], expected)


@pytest.mark.parametrize("ranking", ["running", "two_pass"])
@pytest.mark.parametrize("ranks", ["rankseg", "dynamic", "oracle"])
def test_label_maps_are_those_of_the_videos_ranking(ranks, ranking):
    model = windowed(MODELS[ranks], 4, 2, ranking=ranking)
    sample = video(frames=11)
    result = run(model, sample)[0]
    model.windows = None
    windows = plan(11, 4, 2)
    with torch.no_grad():
        passes = [run_pass(model, seen_by(sample, seen)) for seen, _ in windows]
    frames = torch.tensor([[own.stop - own.start] for _, own in windows]).double()
    scores = torch.cat([one.scores for one in passes]).double()
    if ranks == "oracle":
        means = [scores[0]] * len(windows)
    else:
        sums = (scores.sigmoid() * frames).cumsum(0) / frames.cumsum(0)
        means = list(sums.logit())
    torch.testing.assert_close(result["ranking"]["scores"], means[-1].float(), atol=1e-5, rtol=1e-5)
    for number, (seen, own) in enumerate(windows):
        mean = means[-1] if ranking == "two_pass" else means[number]
        with torch.no_grad():
            clip = passes[number].result(model.ranker.rank(mean[None].float()))
        for frame in range(own.start, own.stop):
            expected = clip["sem_seg_labels"][frame - seen.start].numpy()
            np.testing.assert_array_equal(result["sem_seg_frames"][frame], expected)
    assert result["ranking"]["classes"].equal(clip["ranking"]["classes"])
    if ranks != "oracle":  # else nothing was tested
        kept = {tuple(model.ranker.rank(one.scores).index[0].tolist()) for one in passes}
        assert len(kept) > 1


def test_the_oracle_knows_the_categories_of_the_whole_video():
    sample = video(frames=6)
    sample["instances"] = [rectangles([i], SIZE) for i in (0, 0, 5, 5, 2, 2)]
    result = run(windowed(ORACLE, 2, 0), sample)[0]
    assert result["ranking"]["classes"].tolist() == [0, 2, 5]
    del sample["instances"]
    with pytest.raises(RuntimeError, match=r"a sample has no labels\. MODEL\.RANKSEG\.USE_GT"):
        run(windowed(ORACLE, 2, 0), sample)


def test_videos_of_a_batch_have_windows_of_their_own():
    model = windowed(RANKSEG | BOTH, 3, 1)
    samples = [video(frames, first=20 * frames) for frames in (7, 2, 1)]
    together = run(model, *samples)
    for sample, found in zip(samples, together, strict=True):
        alone = run(model, sample)[0]
        assert len(found["sem_seg_frames"]) == len(sample["image"])
        np.testing.assert_array_equal(found["sem_seg_frames"][:], alone["sem_seg_frames"][:])
        assert found["pred_masks"] == alone["pred_masks"]
        torch.testing.assert_close(found["ranking"], alone["ranking"])


def test_results_hold_no_gradients():
    result = windowed(RANKSEG | BOTH, 3, 1)([video()])[0]
    assert not result["pred_scores"].requires_grad
    assert not result["ranking"]["scores"].requires_grad


# Objects over windows


class Scene:
    """A model's predictions of a video of known squares, whose queries change their order."""

    def __init__(self, model, size=SIZE):
        self.model, self.size = model, size
        generator = torch.Generator().manual_seed(0)
        self.features = torch.nn.functional.normalize(torch.randn(4, 32, generator=generator))
        self.generator = generator
        embed = model.sem_seg_head.predictor.class_embed
        with torch.no_grad():  # object n is of class n, what is no object of none
            embed.weight.zero_()
            embed.weight[:3], embed.weight[-1] = 20 * self.features[:3], 20 * self.features[3]
            embed.bias.zero_()

    def masks(self, frame):
        """Of the objects 0, 1, 2 in a frame: one moves, one is hidden a while, one comes late."""
        shown = torch.zeros(3, *self.size, dtype=torch.bool)
        shown[0, 2:10, 2 * frame : 2 * frame + 8] = True
        if not 5 <= frame < 11:
            shown[1, 14:22, 8:20] = True
        if frame >= 9:
            shown[2, 26:36, 40 - frame : 50 - frame] = True
        return shown

    def network(self, frames, num_frames=1):
        """The frames are plain: their value is their number."""
        numbers = (frames[:, 0, 0, 0] * 60 + 120).round().int().tolist()
        order = torch.randperm(10, generator=self.generator)
        features = self.features[3].repeat(10, 1)
        masks = torch.full((10, num_frames, *frames.shape[-2:]), -5.0)
        seen = torch.stack([self.masks(number) for number in numbers], 1)  # (3, T, H, W)
        for n, mask in enumerate(seen):
            if mask.any():
                features[n] = self.features[n]
                masks[n, :, : self.size[0], : self.size[1]][mask] = 5
        return MaskPredictions(features[order][None, None], [masks[order][None]], [])


def scene_video(length):
    frames = [torch.full((3, *SIZE), float(number)) for number in range(length)]
    return {"image": frames, "video_id": 1}


@pytest.mark.parametrize(("window", "overlap"), [(4, 2), (4, 1), (4, 0), (16, 0), (5, 4)])
def test_objects_keep_their_identity_over_windows(window, overlap):
    keys = INSTANCE | {"MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": 3}
    model = windowed(keys, window, overlap)
    scene = Scene(model)
    model.network = scene.network
    result = run(model, scene_video(16))[0]
    assert sorted(result["pred_labels"].tolist()) == [0, 1, 2]
    assert (result["pred_scores"] > 0.99).all()
    for label, rles in zip(result["pred_labels"].tolist(), result["pred_masks"], strict=True):
        expected = torch.stack([scene.masks(frame)[label] for frame in range(16)])
        np.testing.assert_array_equal(decoded(rles, SIZE), expected.numpy())
        assert [rle is not None for rle in rles] == expected.flatten(1).any(1).tolist()


def test_an_object_that_was_away_for_longer_than_patience_is_another():
    keys = INSTANCE | {"MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": 4}
    model = windowed(keys, 2, 0, link_patience=2)
    model.network = Scene(model).network
    result = run(model, scene_video(16))[0]  # 1 is not in windows 3, 4 and the first half of 5
    assert sorted(result["pred_labels"].tolist())[:3] == [0, 1, 2]
    assert result["pred_labels"].tolist().count(1) == 1
    model.windows = VideoWindows(2, 0, link_patience=1)
    result = run(model, scene_video(16))[0]
    halves = [
        [frame for frame, rle in enumerate(rles) if rle is not None]
        for label, rles in zip(result["pred_labels"].tolist(), result["pred_masks"], strict=True)
        if label == 1
    ]
    assert sorted(halves) == [[0, 1, 2, 3, 4], [11, 12, 13, 14, 15]]


# Scores of the video


def test_video_scores_are_the_logit_of_the_mean_probability():
    logits = 6 * torch.randn(5, 1, 20, generator=torch.Generator().manual_seed(0))
    scores, frames = VideoScores(), [3, 1, 7, 2, 2]
    for row, count in zip(logits, frames, strict=True):
        scores.add(row, count)
    weights = torch.tensor(frames).view(-1, 1, 1) / sum(frames)
    expected = (logits.double().sigmoid() * weights).sum(0).logit()
    torch.testing.assert_close(scores.logits(), expected.float())


def test_video_scores_of_one_window_are_the_windows():
    logits = torch.tensor([[-300.0, -40.0, -1e-6, 0.0, 1.0, 0.3, 17.123, 90.0, 2e3]])
    for dtype in (torch.float32, torch.bfloat16):
        scores = VideoScores()
        scores.add(logits.to(dtype), 17)
        assert scores.logits().equal(logits.to(dtype))


def test_video_scores_keep_what_is_sure_in_one_window_of_many():
    scores = VideoScores()
    for number in range(10):
        scores.add(torch.tensor([[6.0 if number == 4 else -6.0, -3.0]]), 1)
    assert rank(scores.logits(), 1).index.tolist() == [[0]]


# Bad input


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="the video 12 has no frames; leave it out"):
        run(windowed({}, 3, 1), video(frames=0, video_id=12))


def test_an_image_in_place_of_a_video_is_refused():
    with pytest.raises(ValueError, match=r"for a clip a list of such frames, but one is \(64, 96"):
        run(windowed({}, 3, 1), {"image": picture()})


# What is linked, and how a track gets its classes


def test_only_likely_queries_and_the_best_detections_are_linked():
    detections = {"MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": 1}
    run_of = VideoRun(video_model(INSTANCE | detections), video(9), VideoWindows(4, 1))
    probabilities = torch.tensor(
        [
            [0.1, 0.2, 0.7],  # more likely no object
            [0.5, 0.1, 0.4],
            [0.3, 0.3, 0.4],  # a category together, but none of them alone
            [0.1, 0.6, 0.3],
            [0.0, 0.1, 0.9],
        ]
    )
    classes = Classes(probabilities, torch.arange(2), 2, False)
    assert run_of.objects(classes).tolist() == [1, 3]
    probabilities[:, 2] += 1  # none is likely: the best detection alone
    assert run_of.objects(classes).tolist() == [3]


@torch.no_grad()
def test_the_classes_of_a_track_are_weighted_by_the_frames_of_its_windows():
    model = video_model(INSTANCE)
    run_of = VideoRun(model, video(9), VideoWindows(4, 1))
    dim = model.sem_seg_head.predictor.class_embed.in_features
    queries = torch.randn(3, dim, generator=torch.Generator().manual_seed(0))
    first, second = Track(), Track()
    for query, frames in zip(queries[:2], (1, 6), strict=True):
        one = Found(query[None], [0.5], torch.zeros(1, 1), torch.zeros(1, 1), frames)
        first.extend(one, 0, 1)
    second.extend(Found(queries[2:], [0.5], torch.zeros(1, 1), torch.zeros(1, 1), 3), 0, 1)
    each = model.classify(queries[None], None)[0].softmax(-1)
    expected = torch.stack([(each[0] + 6 * each[1]) / 7, each[2]])
    found = run_of.track_classes([first, second], None).probabilities
    torch.testing.assert_close(found, expected)
    assert (found[0] - each[:2].mean(0)).abs().max() > 0.01
