"""The Predictor with every family of pixel classifiers."""

import re

import numpy as np
import pytest
from support import exploring
from support.packed import make_run
from support.pixel_families import FAMILIES, REFINING, rankseg, variants
from support.predicting import NAMES, by_hand, pixels
from support.predicting import make_family_predictor as make_predictor
from support.small import CLASSES

from rankseg_d2.engine import pack
from rankseg_d2.predict import Predictor

EACH = pytest.mark.parametrize("family", FAMILIES)
SIZE = (50, 78)  # 40 x 62 for the model: no multiple of a patch, or of a stride


@EACH
def test_a_packed_file_predicts_as_its_model(family, tmp_path):
    keys = FAMILIES[family] | rankseg(family, TOPK=3)
    keys |= {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 5}
    cfg, model = make_run(tmp_path, name=family.replace(" ", "_"), **keys)
    predictor = Predictor.from_checkpoint(pack(tmp_path / "run"), device="cpu")
    assert predictor.topk == 3
    result, expected = predictor(pixels(4)), Predictor(model, cfg, predictor.classes)(pixels(4))
    np.testing.assert_array_equal(result.semantic, expected.semantic)
    assert result.categories == expected.categories
    written = {path.name for path in result.save(tmp_path / "out", label_png=True, overlay=True)}
    assert any(name.endswith(".png") for name in written)


@EACH
def test_what_is_wished_acts_before_the_best_are_kept(family):
    predictor, image = make_predictor(FAMILIES[family] | rankseg(family)), pixels()
    scores = by_hand(predictor, image)["ranking"]["scores"]
    order = scores.argsort(descending=True).tolist()
    names = [NAMES[number] for number in order]
    likely = min(4, max(1, (scores.sigmoid() > 0.9).sum()))
    for wish, kept in (
        ({}, order[:4]),
        ({"deny": [names[0], names[2]]}, [order[1], *order[3:6]]),
        ({"allow": [names[4], names[6]]}, [order[4], order[6]]),
        ({"topk": 2}, order[:2]),
        ({"threshold": 0.9}, order[:likely]),
        ({"prior": {names[6]: 1e9}}, [order[6], *order[:3]]),
    ):
        result = predictor(image, **wish)
        assert [one.number for one in result.categories if one.kept] == kept
        assert set(np.unique(result.semantic)) <= set(kept)


@EACH
def test_ranks_below_a_threshold_are_as_ranks_that_are_not_kept(family):
    predictor, image = make_predictor(FAMILIES[family] | rankseg(family)), pixels()
    chances = [one.probability for one in predictor(image).categories]
    for count in (1, 2, 3):
        threshold = sum(chances[count - 1 : count + 1]) / 2
        one, other = predictor(image, threshold=threshold), predictor(image, topk=count)
        assert sum(category.kept for category in one.categories) == count
        assert (one.semantic == other.semantic).mean() > 0.999


@EACH
def test_without_a_ranking_classes_can_be_denied(family):
    predictor, image = make_predictor(FAMILIES[family]), pixels()
    largest = np.bincount(predictor(image).semantic.ravel(), minlength=CLASSES).argmax()
    result = predictor(image, deny=[NAMES[largest]])
    assert largest not in result.semantic
    with pytest.raises(ValueError, match="topk needs a model that ranks"):
        predictor(image, topk=2)


EXPLORABLE = {
    name: keys
    for name, keys in variants().items()
    if name.partition(",")[0] not in REFINING or "RankSeg" not in name
}


@pytest.mark.parametrize("options", EXPLORABLE.values(), ids=EXPLORABLE)
def test_a_page_gives_the_same_labels(options, tmp_path):
    predictor, image = make_predictor(options), pixels(size=SIZE)
    result = predictor(image, explorable=True)
    content = exploring.content_of(result.explore(tmp_path / "page.html"))
    np.testing.assert_array_equal(result.semantic, predictor(image).semantic)
    largest = np.bincount(result.semantic.ravel(), minlength=CLASSES).argsort()[::-1][:2]
    topk = predictor.topk
    for kept, denied in ((topk, ()), (topk, largest), (topk and 2, ())):
        wishes = {"deny": [NAMES[i] for i in denied]} | ({"topk": kept} if kept else {})
        labels = exploring.labels_of(content, kept, 0, denied)
        assert exploring.agreement(labels, predictor(image, **wishes)) >= 0.995, wishes


@pytest.mark.parametrize("family", REFINING)
def test_a_ranking_that_changes_pixels_and_classes_has_no_page(family):
    predictor = make_predictor(FAMILIES[family] | rankseg(family))
    head = type(predictor.model.sem_seg_head).__name__
    message = f"explorable=True is not for a {head} that ranks: its pixels and classes change"
    with pytest.raises(ValueError, match=re.escape(message)):
        predictor(pixels(), explorable=True)
