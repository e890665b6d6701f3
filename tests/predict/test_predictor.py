"""A predictor gives what its model gives, for one image or many, and leaves the model as it was."""

import copy
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from support.predicting import (
    ALL,
    PIXELS,
    ROWS,
    SIZE,
    by_hand,
    make_predictor,
    pixels,
    ranking_predictor,
)
from support.small import KINDS, RANKSEG

from rankseg_d2.modeling.passes import in_passes
from rankseg_d2.predict import Predictor
from rankseg_d2.predict.classes import Classes
from rankseg_d2.predict.predictor import UnreadableItem

SEMANTIC_KINDS = {
    "maskformer": (KINDS["maskformer"],),
    "mask2former": (KINDS["mask2former"],),
    "rankseg": (KINDS["mask2former"], RANKSEG),
    "pixels": (PIXELS,),
    "ranked pixels": (PIXELS, RANKSEG),
}


@pytest.mark.parametrize("name", SEMANTIC_KINDS)
def test_labels_are_those_of_the_model_called_by_hand(name):
    kind, *options = SEMANTIC_KINDS[name]
    predictor = make_predictor(*options, kind=kind)
    image = pixels(3)
    result, output = predictor(image), by_hand(predictor, image)
    assert result.size == SIZE and result.semantic.dtype == np.uint8
    np.testing.assert_array_equal(result.semantic, output["sem_seg_labels"].numpy())
    np.testing.assert_array_equal(result.image, image)


def test_segments_instances_and_ranking_are_those_of_the_model_called_by_hand():
    predictor = ranking_predictor(ALL)
    result, output = predictor(pixels(1)), by_hand(predictor, pixels(1))
    ids, segments = output["panoptic_seg"]
    np.testing.assert_array_equal(result.panoptic.ids, ids.numpy())
    names = [ROWS[s["category_id"]]["name"] for s in segments]
    assert [s["name"] for s in result.panoptic.segments] == names and len(names) > 2

    found = output["instances"]
    some = found.pred_masks.flatten(1).any(1)
    np.testing.assert_array_equal(result.instances.masks, found.pred_masks[some].numpy())
    np.testing.assert_array_equal(result.instances.scores, found.scores[some].numpy())
    np.testing.assert_array_equal(result.instances.categories, found.pred_classes[some].numpy())
    assert len(result.instances) == some.sum() > 0

    scores, kept = output["ranking"]["scores"], output["ranking"]["classes"].tolist()
    assert [one.number for one in result.categories] == scores.argsort(descending=True).tolist()
    assert [one.number for one in result.categories if one.kept] == kept
    for one in result.categories:
        assert one.probability == pytest.approx(scores[one.number].sigmoid().item(), rel=1e-5)
        assert one.present == bool((result.semantic == one.number).any())


def test_passes_of_the_config_are_used():
    keys = {"ENABLED": True, "SIZE": [40, 40], "STRIDE": [20, 20]}
    predictor = ranking_predictor({f"TEST.SLIDING_WINDOW.{key}": x for key, x in keys.items()})
    plain, image = ranking_predictor(), pixels(2)
    whole = plain(image).semantic
    plain.model = in_passes(predictor.cfg, plain.model)
    wanted = by_hand(plain, image)["sem_seg_labels"].numpy()
    np.testing.assert_array_equal(predictor(image).semantic, wanted)
    assert (wanted != whole).any()


def test_test_time_augmentation_makes_its_own_sizes():
    keys = {"ENABLED": True, "MIN_SIZES": [40, 48], "FLIP": True, "MAX_SIZE": 96}
    predictor = ranking_predictor({f"TEST.AUG.{key}": x for key, x in keys.items()})
    sample = {"image": torch.from_numpy(pixels()).permute(2, 0, 1), "height": 32, "width": 48}
    (wanted,) = in_passes(predictor.cfg, predictor.model)([sample])
    np.testing.assert_array_equal(predictor(pixels()).semantic, wanted["sem_seg_labels"].numpy())


def test_models_of_bgr_get_bgr():
    bgr, rgb = make_predictor({"INPUT.FORMAT": "BGR"}), make_predictor()
    found, wanted = bgr(pixels()), rgb(pixels()[..., ::-1].copy())
    np.testing.assert_array_equal(found.semantic, wanted.semantic)
    np.testing.assert_array_equal(found.image, pixels())


def test_batches_equal_single_images_whatever_the_sizes():
    predictor = ranking_predictor()
    predictor.model.double()
    images = [pixels(i, [SIZE, (40, 40), (24, 64)][i % 3]) for i in range(11)]
    single = predictor(images)
    for batch in (2, 3, 16):
        together = predictor(images, batch=batch)
        assert [one.name for one in together] == [str(i) for i in range(11)]
        for one, other, image in zip(single, together, images, strict=True):
            np.testing.assert_array_equal(other.image, image)
            assert (one.semantic == other.semantic).mean() > 0.999
            chances = [[c.probability for c in sorted(x.categories, key=lambda c: c.number)]
                       for x in (one, other)]  # fmt: skip
            np.testing.assert_allclose(*chances, rtol=1e-5)


def test_a_batch_runs_the_network_once(monkeypatch):
    predictor = make_predictor()
    sizes, network = [], predictor.model.network
    predictor.model.network = lambda frames, n=1: sizes.append(len(frames)) or network(frames, n)
    predictor([pixels(i) for i in range(5)], batch=4)
    assert sizes == [4, 1]


def test_an_image_gives_a_result_a_list_a_list_and_a_generator_a_generator():
    predictor = make_predictor()
    assert predictor(pixels()).name == "0"
    assert [one.name for one in predictor([pixels()])] == ["0"]
    assert predictor([]) == []
    results = predictor(pixels(i) for i in range(3))
    assert [one.name for one in results] == ["0", "1", "2"]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_generator_is_pulled_lazily_and_only_a_little_ahead(batch):
    pulled = []

    def pictures():
        for i in range(1000):
            pulled.append(i)
            yield pixels(i % 3)

    predictor = make_predictor()
    results = predictor(pictures(), batch=batch)
    assert pulled == []
    next(results)
    first = len(pulled)
    assert first <= 1 + 2 + (0 if batch == 1 else 10)
    for _ in range(20):
        next(results)
    assert len(pulled) <= 20 + first + 4 * batch
    results.close()


def test_a_generator_closed_early_ends_its_threads():
    predictor = make_predictor()
    before = threading.active_count()
    results = predictor((pixels() for _ in range(100)), threads=3)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_an_unreadable_image_is_named_or_given_in_its_place(tmp_path):
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(pixels()).save(good)
    bad.write_bytes(b"nothing")
    predictor = make_predictor()
    with pytest.raises(UnreadableItem, match=r"the image .*b\.png cannot be read"):
        predictor([good, bad])
    for batch in (1, 2):
        first, error, last = predictor([good, bad, good], skip_errors=True, batch=batch)
        assert isinstance(error, UnreadableItem) and str(bad) in str(error)
        np.testing.assert_array_equal(first.semantic, last.semantic)
    with pytest.raises(UnreadableItem, match="image 1: .* from 0 to 1; multiply it by 255"):
        predictor([pixels(), pixels() / 255])


def test_the_model_is_left_as_it_was_after_a_call_and_after_an_error(monkeypatch):
    for predictor in (ranking_predictor(), make_predictor()):
        model = predictor.model
        before = model.ranker, model.result_options, copy.deepcopy(model.state_dict())
        wanted = predictor(pixels()).semantic
        predictor(pixels(), deny=["sky"])
        monkeypatch.setattr(model, "network", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictor(pixels(), deny=["sky"])
        monkeypatch.undo()
        assert (model.ranker, model.result_options) == before[:2]
        assert all(torch.equal(before[2][key], x) for key, x in model.state_dict().items())
        np.testing.assert_array_equal(predictor(pixels()).semantic, wanted)


def test_bfloat16_gives_nearly_the_same():
    predictor = ranking_predictor()
    half = Predictor(predictor.model, predictor.cfg, predictor.classes, dtype=torch.bfloat16)
    one, other = (
        [c.probability for c in sorted(some(pixels()).categories, key=lambda c: c.number)]
        for some in (half, predictor)
    )
    assert one == pytest.approx(other, abs=0.1) and one != other


def test_repr_and_speed():
    predictor = ranking_predictor(ALL)
    assert repr(predictor) == (
        "Predictor(RankSegMaskFormer of 7 classes, ranks them and keeps 4, on cpu)"
    )
    result = predictor(pixels())
    assert set(result.speed) == {"prepare", "network", "results"}
    assert all(milliseconds > 0 for milliseconds in result.speed.values())
    assert repr(result).startswith("ImageResult(0: 48 x 32; ")
    assert result.names[0] in repr(result) and " ms)" in repr(result)


def test_bad_arguments():
    predictor = make_predictor()
    with pytest.raises(ValueError, match="batch and threads must be at least 1; got 0 and 2"):
        predictor(pixels(), batch=0)
    with pytest.raises(ValueError, match="7 classes, but there are 1 names"):
        Predictor(predictor.model, predictor.cfg, Classes.of(ROWS[:1]))
    with pytest.raises(ValueError, match="a model of this package, not Linear"):
        Predictor(torch.nn.Linear(1, 1), predictor.cfg, predictor.classes)
    nothing = {f"MODEL.MASK_FORMER.TEST.{x}_ON": False for x in ("SEMANTIC", "INSTANCE")}
    with pytest.raises(ValueError, match=r"MODEL\.MASK_FORMER\.TEST switches all results off"):
        make_predictor(nothing)
    oracle = {"MODEL.RANKSEG.USE_GT": True}
    with pytest.raises(ValueError, match="the oracle .* ranks by ground truth"):
        ranking_predictor(oracle)
