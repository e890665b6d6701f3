"""Sliding-window inference against windows that are run and pasted one by one."""

import pytest
import torch
from detectron2.modeling import build_model
from support.small import (
    CLASSES,
    KINDS,
    MASK2FORMER,
    MASKFORMER,
    RANKSEG,
    VIDEO,
    clip_sample,
    image_sample,
    make_config,
    make_model,
    picture,
    rank_by,
)

from rankseg_d2.config import get_config
from rankseg_d2.engine import Trainer
from rankseg_d2.modeling.clips import window_slices
from rankseg_d2.modeling.passes.sliding_window import SlidingWindow
from rankseg_d2.ranking import rank

ORACLE = {**RANKSEG, "MODEL.RANKSEG.USE_GT": True}


def model_of(*options):
    return make_model(*options).eval()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in ("sem_seg", "sem_seg_scores"):
        if name in expected:
            torch.testing.assert_close(found[name], expected[name])
    for name in ("sem_seg_labels", "sem_seg_classes"):
        if name in expected:
            assert found[name].equal(expected[name])
    if "ranking" in expected:
        assert found["ranking"]["classes"].equal(expected["ranking"]["classes"])
        torch.testing.assert_close(found["ranking"]["scores"], expected["ranking"]["scores"])


@torch.no_grad()
def pasted(model, image, windows):
    """Mean scores (K, H, W) of windows that the model is given one by one."""
    total = count = 0
    for top, left, bottom, right in windows:
        crop = image[:, top:bottom, left:right]
        result = model([{"image": crop}])[0]
        scores = result.get("sem_seg_scores", result.get("sem_seg"))
        full = scores.new_zeros(len(scores), *image.shape[-2:])
        full[:, top:bottom, left:right] = scores
        total = total + full
        inside = torch.zeros(image.shape[-2:])
        inside[top:bottom, left:right] = 1
        count = count + inside
    return total / count


TILES = [(0, 0, 32, 48), (0, 48, 32, 96), (32, 0, 64, 48), (32, 48, 64, 96)]
# With a stride of (32, 30); the last ones end where the image ends.
OVERLAPPING = [(top, left, top + 32, left + 48) for top in (0, 32) for left in (0, 30, 48)]


# --- one window is the model itself ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        RANKSEG,
        {**RANKSEG, "MODEL.RANKSEG.THRESHOLD": 0.5},
        {**RANKSEG, "MODEL.RANKSEG.FULL_SCORES": True},
        ORACLE,
    ],
    ids=["plain", "rankseg", "dynamic", "full", "oracle"],
)
def test_a_window_of_the_whole_image_is_the_model_itself(kind, options):
    model = model_of(KINDS[kind], options)
    sample = image_sample(height=50, width=70)
    with torch.no_grad():
        expected = model([sample])[0]
    # Also one that is larger: it ends where the image ends.
    for size in [(64, 96), (100, 1000)]:
        assert_same(SlidingWindow(model, size, size)([sample])[0], expected)


def test_a_clip_is_windowed_in_all_its_frames():
    model = model_of(MASK2FORMER, VIDEO, RANKSEG)
    sample = clip_sample()
    with torch.no_grad():
        expected = model([sample])[0]
    assert_same(SlidingWindow(model, (64, 96), (64, 96))([sample])[0], expected)
    result = SlidingWindow(model, (32, 48), (32, 24))([sample])[0]
    assert result["sem_seg_labels"].shape == (2, 64, 96)


def test_a_model_that_gives_labels_alone_gives_its_windows_the_scores():
    model = model_of(MASK2FORMER, {"MODEL.MASK_FORMER.TEST.SEMANTIC_SCORES": False})
    sample = image_sample(height=50, width=70)
    with torch.no_grad():
        expected = model([sample])[0]
    assert expected.keys() == {"sem_seg_labels"}
    found = SlidingWindow(model, (64, 96), (64, 96))([sample])[0]
    assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
    assert found["sem_seg"].argmax(0).equal(expected["sem_seg_labels"])


# --- several windows ------------------------------------------------------------------------------


@pytest.mark.parametrize("stride, windows", [((32, 48), TILES), ((32, 30), OVERLAPPING)])
def test_windows_are_averaged_where_they_overlap(stride, windows):
    model, image = model_of(MASKFORMER), picture()
    result = SlidingWindow(model, (32, 48), stride)([{"image": image}])[0]
    expected = pasted(model, image, windows)
    torch.testing.assert_close(result["sem_seg"], expected)
    assert result["sem_seg_labels"].equal(expected.argmax(0))


@pytest.mark.parametrize("stride, windows", [((32, 48), TILES), ((32, 30), OVERLAPPING)])
def test_all_windows_have_the_ranking_of_the_image(stride, windows, monkeypatch):
    model, image = model_of(MASK2FORMER, RANKSEG), picture()
    with torch.no_grad():
        alone = [
            model([{"image": image[:, t:b, left:right]}])[0]["ranking"]
            for t, left, b, right in windows
        ]
    scores = torch.stack([ranking["scores"] for ranking in alone]).amax(0)
    # By themselves they keep other categories, so that a mean would need fillers.
    assert len({tuple(sorted(ranking["classes"].tolist())) for ranking in alone}) > 1

    result = SlidingWindow(model, (32, 48), stride)([{"image": image}])[0]
    assert result["ranking"]["classes"].equal(scores.argsort(descending=True)[:4])
    torch.testing.assert_close(result["ranking"]["scores"], scores)
    rank_by(monkeypatch, model, lambda own: rank(scores[None], 4))
    expected = pasted(model, image, windows)
    torch.testing.assert_close(result["sem_seg_scores"], expected)
    assert result["sem_seg_labels"].equal(result["sem_seg_classes"][expected.argmax(0)])


def test_a_category_of_one_window_is_a_category_of_the_image():
    """Its score is the highest of the windows; a mean would put others before it."""
    model = model_of(MASK2FORMER, RANKSEG, {"MODEL.RANKSEG.TOPK": 1})
    given = iter([[0.0, 3.0, 2.0], [0.0, -9.0, 2.0]])
    model.score = lambda outputs: torch.tensor([[*next(given), 0, 0, 0, 0]])
    result = SlidingWindow(model, (64, 48), (64, 48))([{"image": picture()}])[0]
    assert result["ranking"]["classes"].tolist() == [1]
    assert result["sem_seg_labels"].eq(1).all()


def test_the_oracle_knows_what_is_in_the_image_not_what_is_in_a_window():
    labels = torch.full((64, 96), 2)
    labels[:5, :5] = 6
    model = model_of(MASK2FORMER, ORACLE)
    sample = {"image": picture(), "sem_seg": labels}
    result = SlidingWindow(model, (32, 48), (32, 48))([sample])[0]
    assert result["sem_seg_classes"].tolist() == [2, 6]


def test_an_image_without_categories_has_no_labels():
    model = model_of(MASK2FORMER, ORACLE)
    sample = image_sample(labels=())
    result = SlidingWindow(model, (32, 48), (32, 48))([sample])[0]
    assert result["sem_seg_labels"].eq(CLASSES).all()
    assert result["sem_seg_scores"].shape == (0, 64, 96)


def test_results_have_the_size_that_is_asked_for():
    model, image = model_of(MASK2FORMER, RANKSEG), picture()
    window = SlidingWindow(model, (32, 48), (32, 30))
    own = window([{"image": image}])[0]["sem_seg_scores"]
    large, small = window([{"image": image, "height": 90, "width": 120}, {"image": image[:, :40]}])
    expected = torch.nn.functional.interpolate(own[None], (90, 120), mode="bilinear")[0]
    torch.testing.assert_close(large["sem_seg_scores"], expected)
    assert small["sem_seg_labels"].shape == (40, 96)


def test_models_of_another_kind_are_windowed_too():
    baseline = {
        "MODEL.META_ARCHITECTURE": "PixelClassifier",
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    }
    model, image = build_model(make_config(baseline)).eval(), picture()
    result = SlidingWindow(model, (32, 48), (32, 30))([{"image": image}])[0]
    torch.testing.assert_close(result["sem_seg"], pasted(model, image, OVERLAPPING))


@pytest.mark.parametrize(
    "length, size, stride, expected",
    [
        (10, 10, 3, [(0, 10)]),
        (4, 10, 3, [(0, 4)]),
        (11, 10, 3, [(0, 10), (1, 11)]),
        (12, 4, 4, [(0, 4), (4, 8), (8, 12)]),
        (12, 5, 3, [(0, 5), (3, 8), (6, 11), (7, 12)]),
        (3, 1, 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_windows_cover_a_side_and_stay_inside(length, size, stride, expected):
    assert [(part.start, part.stop) for part in window_slices(length, size, stride)] == expected


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, stride", [((32, 32), (33, 32)), ((32, 32), (0, 8)), ((32,), (32,)), ((0, 0), (0, 0))]
)
def test_windows_that_leave_gaps_are_refused(size, stride):
    with pytest.raises(ValueError, match="TEST.SLIDING_WINDOW.SIZE and STRIDE are"):
        SlidingWindow(model_of(MASKFORMER), size, stride)


@pytest.mark.parametrize("key, value", [("PANOPTIC_ON", True), ("SEMANTIC_ON", False)])
def test_results_that_cannot_be_averaged_are_refused(key, value):
    model = model_of(MASKFORMER, {f"MODEL.MASK_FORMER.TEST.{key}": value})
    with pytest.raises(ValueError, match="SlidingWindow makes semantic results only: set MODEL"):
        SlidingWindow(model, (8, 8), (8, 8))


def test_a_training_whose_evaluation_would_be_refused_does_not_start(tmp_path):
    opts = ["OUTPUT_DIR", str(tmp_path), "TEST.SLIDING_WINDOW.ENABLED", True]
    opts += ["DATASETS.TRAIN", ("shapes_panoptic_val",)]  # which is small
    cfg = get_config("shapes/panoptic/r10t", opts)
    with pytest.raises(ValueError, match="SlidingWindow makes semantic results only"):
        Trainer(cfg)


def test_the_wrapper_is_in_the_mode_of_its_model():
    model = model_of(MASKFORMER)
    assert not SlidingWindow(model, (8, 8), (8, 8)).training
    assert SlidingWindow(model.train(), (8, 8), (8, 8)).training and model.training
