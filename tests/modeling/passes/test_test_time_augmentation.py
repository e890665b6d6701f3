"""Test-time augmentation against views that are made and averaged one by one."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import ResizeTransform
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from PIL import Image
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

from rankseg_d2.engine import Trainer
from rankseg_d2.modeling.passes.sliding_window import SlidingWindow
from rankseg_d2.modeling.passes.test_time_augmentation import TestTimeAugmentation
from rankseg_d2.ranking import Ranking, rank

SIZES = [(32, 48), (64, 96)]  # of an image of 64 x 96 for short edges of 32 and 64
PAIRS = ((1, 2), (4, 6))
SWAP = torch.tensor([0, 2, 1, 3, 6, 5, 4])


def model_of(*options):
    return make_model(*options).eval()


def photo(number=0, size=(64, 96)):
    return picture(number, size).to(torch.uint8)


def augmented(model, sizes=(32, 64), flip=True, pairs=()):
    return TestTimeAugmentation(model, sizes, 1000, flip, pairs)


def resized(image, size):
    pixels = image.permute(1, 2, 0).numpy()
    pixels = ResizeTransform(*image.shape[-2:], *size).apply_image(pixels)
    return torch.as_tensor(pixels.copy()).permute(2, 0, 1)


@torch.no_grad()
def scores_of(model, image, size=(64, 96)):
    result = model([{"image": image, "height": size[0], "width": size[1]}])[0]
    return result.get("sem_seg_scores", result.get("sem_seg"))


# --- the mean of the views ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, RANKSEG], ids=["plain", "rankseg"])
def test_one_scale_without_flip_is_the_model_itself(kind, options):
    model = model_of(KINDS[kind], options)
    sample = {"image": photo(), "height": 40, "width": 80}
    with torch.no_grad():
        expected = model([sample])[0]
    found = augmented(model, [64], flip=False)([sample])[0]
    assert found.keys() == expected.keys()
    assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
    name = "sem_seg_scores" if options else "sem_seg"
    torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("pairs", [(), PAIRS], ids=["alike", "left and right"])
def test_scores_are_the_mean_over_scales_and_flips(pairs):
    model, image = model_of(MASKFORMER), photo()
    swap = SWAP if pairs else torch.arange(CLASSES)
    views = [resized(image, size) for size in SIZES]
    plain = [scores_of(model, view) for view in views]
    mirrored = [scores_of(model, view.flip(-1)).flip(-1)[swap] for view in views]
    expected = torch.stack([*plain, *mirrored]).mean(0)
    result = augmented(model, pairs=pairs)([{"image": image}])[0]
    torch.testing.assert_close(result["sem_seg"], expected)
    assert result["sem_seg_labels"].equal(expected.argmax(0))


@pytest.mark.parametrize("pairs", [(), PAIRS], ids=["alike", "left and right"])
def test_all_views_have_the_ranking_of_the_image(pairs, monkeypatch):
    model, image = model_of(MASK2FORMER, RANKSEG), photo()
    swap = SWAP if pairs else torch.arange(CLASSES)
    views = [resized(image, size) for size in SIZES]
    with torch.no_grad():
        alone = [model([{"image": view}])[0]["ranking"]["scores"] for view in views]
    ranking = rank(torch.stack(alone).mean(0)[None], 4)

    result = augmented(model, pairs=pairs)([{"image": image}])[0]
    assert result["ranking"]["classes"].equal(ranking.index[0])
    torch.testing.assert_close(result["ranking"]["scores"], ranking.scores[0])
    rank_by(monkeypatch, model, lambda own: ranking)
    plain = [scores_of(model, view) for view in views]
    rank_by(monkeypatch, model, lambda own: Ranking(ranking.scores, swap[ranking.index]))
    mirrored = [scores_of(model, view.flip(-1)).flip(-1) for view in views]
    expected = torch.stack([*plain, *mirrored]).mean(0)
    torch.testing.assert_close(result["sem_seg_scores"], expected)
    assert result["sem_seg_labels"].equal(ranking.index[0][expected.argmax(0)])


def test_the_network_runs_once_per_view_and_the_ranking_is_made_once(monkeypatch):
    model, image = model_of(MASK2FORMER, RANKSEG), photo()
    runs, rankings = [], []
    model.backbone.register_forward_hook(lambda module, args, _: runs.append(args[0].shape[-2:]))
    rank_by(monkeypatch, model, lambda scores: rankings.append(scores) or rank(scores, 4))
    augmented(model)([{"image": image}])
    assert runs == [(32, 64)] * 2 + [(64, 96)] * 2  # padded to multiples of 32
    assert len(rankings) == 1


def test_a_symmetric_image_has_a_symmetric_result():
    model = model_of(MASK2FORMER, RANKSEG)
    half = photo(size=(64, 48))
    result = augmented(model, [64])([{"image": torch.cat([half, half.flip(-1)], -1)}])[0]
    scores = result["sem_seg_scores"]
    torch.testing.assert_close(scores, scores.flip(-1))
    assert scores.std() > 0


@pytest.mark.parametrize("flip", [False, True])
def test_left_and_right_change_places_with_the_image(flip):
    """What is said of the mirrored image is the mirrored result, once both views are averaged."""
    model, image = model_of(MASKFORMER), photo()
    wrapped = augmented(model, [64], flip, PAIRS)
    own = wrapped([{"image": image}])[0]["sem_seg"]
    mirrored = wrapped([{"image": image.flip(-1)}])[0]["sem_seg"]
    assert torch.allclose(mirrored.flip(-1)[SWAP], own, atol=1e-5) is flip


@pytest.mark.parametrize(
    "options",
    [
        {"MODEL.RANKSEG.THRESHOLD": 0.5},
        {"MODEL.RANKSEG.FULL_SCORES": True},
        {"MODEL.RANKSEG.USE_GT": True},
    ],
    ids=["dynamic", "full", "oracle"],
)
def test_every_kind_of_ranking_can_be_averaged(options):
    model = model_of(MASK2FORMER, RANKSEG, options)
    sample = image_sample(labels=(3, 5))
    result = augmented(model, pairs=PAIRS)([{**sample, "image": photo()}])[0]
    classes, scores = result["sem_seg_classes"], result["sem_seg_scores"]
    assert len(classes) == len(scores)
    assert result["sem_seg_labels"].equal(classes[scores.argmax(0)])
    if "MODEL.RANKSEG.USE_GT" in options:
        assert classes.tolist() == [3, 5]
    if "sem_seg" in result:
        assert result["sem_seg"][classes].equal(scores)
        assert result["sem_seg"].count_nonzero() == scores.count_nonzero()


def test_clips_are_averaged_in_all_their_frames():
    model = model_of(MASK2FORMER, VIDEO, RANKSEG)
    sample = clip_sample(height=50, width=70)
    result = augmented(model, [32, 64])([sample])[0]
    assert result["sem_seg_labels"].shape == (2, 50, 70)
    assert result["sem_seg_scores"].shape == (4, 2, 50, 70)


def test_windows_can_be_within_views():
    model, image = model_of(MASK2FORMER, RANKSEG), photo()
    whole = augmented(model, [32, 64])([{"image": image}])[0]
    windows = augmented(SlidingWindow(model, (64, 96), (64, 96)), [32, 64])
    found = windows([{"image": image}])[0]
    torch.testing.assert_close(found["sem_seg_scores"], whole["sem_seg_scores"])
    small = augmented(SlidingWindow(model, (32, 48), (32, 48)), [32, 64])([{"image": image}])[0]
    assert small["sem_seg_labels"].shape == (64, 96)


def test_models_of_another_kind_are_averaged_too():
    keys = {
        "MODEL.META_ARCHITECTURE": "PixelClassifier",
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    }
    model, image = build_model(make_config(keys)).eval(), photo()
    views = [view for size in SIZES for view in [resized(image, size)]]
    with torch.no_grad():
        scores = [scores_of(model, view) for view in views]
        scores += [scores_of(model, view.flip(-1)).flip(-1) for view in views]
    result = augmented(model)([{"image": image}])[0]
    torch.testing.assert_close(result["sem_seg"], torch.stack(scores).mean(0))


# --- in an evaluation -----------------------------------------------------------------------------


class Seen(DatasetEvaluator):
    def reset(self):
        self.samples, self.outputs = [], []

    def process(self, inputs, outputs):
        self.samples += inputs
        self.outputs += outputs

    def evaluate(self):
        return {"sem_seg": {"images": len(self.outputs)}}


@pytest.fixture
def dataset(tmp_path):
    pixels = photo(size=(48, 60)).permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "height": 48, "width": 60, "image_id": 1}
    DatasetCatalog.register("tta_image", lambda: [record])
    MetadataCatalog.get("tta_image").set(flip_pairs=PAIRS)
    yield "tta_image"
    DatasetCatalog.remove("tta_image")
    MetadataCatalog.remove("tta_image")


def evaluate(dataset, *options):
    test = {
        "DATASETS.TEST": (dataset,),
        "INPUT.MIN_SIZE_TEST": 32,
        "INPUT.FORMAT": "RGB",
        "DATALOADER.NUM_WORKERS": 0,
    }
    cfg = make_config(MASK2FORMER, RANKSEG, test, *options)
    model, seen, runs = model_of(MASK2FORMER, RANKSEG), Seen(), []
    model.backbone.register_forward_hook(lambda module, args, _: runs.append(args[0].shape[-2:]))
    assert Trainer.test(cfg, model, seen) == {"sem_seg": {"images": 1}}
    assert not model.training
    return seen, runs


def test_an_evaluation_scales_images_from_their_native_size(dataset):
    seen, runs = evaluate(dataset)
    assert seen.samples[0]["image"].shape == (3, 32, 40) and len(runs) == 1
    aug = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (48, 64), "TEST.AUG.FLIP": True}
    seen, runs = evaluate(dataset, aug)
    assert seen.samples[0]["image"].shape == (3, 48, 60)
    assert runs == [(64, 64)] * 2 + [(64, 96)] * 2  # padded to multiples of 32
    assert seen.outputs[0]["sem_seg_labels"].shape == (48, 60)


def test_an_evaluation_can_slide_windows(dataset):
    window = {
        "TEST.SLIDING_WINDOW.ENABLED": True,
        "TEST.SLIDING_WINDOW.SIZE": [32, 36],
        "TEST.SLIDING_WINDOW.STRIDE": [16, 16],
    }
    seen, runs = evaluate(dataset, window)
    assert seen.samples[0]["image"].shape == (3, 32, 40)
    assert runs == [(32, 64)] * 2  # padded to multiples of 32
    assert seen.outputs[0]["sem_seg_labels"].shape == (48, 60)


def test_swapped_classes_come_from_the_data_set(dataset):
    cfg = make_config({"DATASETS.TEST": (dataset,)})
    assert TestTimeAugmentation.from_config(cfg, model_of(MASKFORMER)).flip_pairs == PAIRS


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (0, 32)])
def test_scales_without_pixels_are_refused(sizes):
    with pytest.raises(ValueError, match="TEST.AUG.MIN_SIZES must be lengths in pixels"):
        augmented(model_of(MASKFORMER), sizes)


def test_results_that_cannot_be_averaged_are_refused():
    model = model_of(MASKFORMER, {"MODEL.MASK_FORMER.TEST.INSTANCE_ON": True})
    with pytest.raises(ValueError, match="TestTimeAugmentation makes semantic results only"):
        augmented(model)
