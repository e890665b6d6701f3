import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from support.exploring import (
    PLAIN,
    RANKING,
    agreement,
    content_of,
    labels_of,
    make_predictor,
    pixels,
    wishes_for,
)
from support.predicting import NAMES, PIXELS
from support.small import CLASSES, MASK2FORMER, RANKSEG

from rankseg_d2.predict.explore import check_explorable, packing, page

ENOUGH = 0.995  # of the pixels: what is quantised decides the closest ones otherwise


@pytest.mark.parametrize("options", RANKING.values(), ids=RANKING)
def test_what_is_stored_gives_the_labels_of_every_ranking(options, tmp_path):
    predictor, image = make_predictor(*options), pixels()
    result = predictor(image, explorable=True)
    content = content_of(result.explore(tmp_path / "page.html"))
    some = set()
    for topk, threshold, denied in wishes_for(result):
        names = [NAMES[i] for i in denied]
        wanted = predictor(image, topk=topk, threshold=threshold or None, deny=names)
        labels = labels_of(content, topk, threshold, denied)
        assert agreement(labels, wanted) >= ENOUGH, (topk, threshold, denied)
        some.add(labels.tobytes())
    assert len(some) >= 3  # so the wishes matter


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_without_a_ranking_denied_classes_leave_the_softmax(options, tmp_path):
    predictor, image = make_predictor(*options), pixels(1)
    content = content_of(predictor(image, explorable=True).explore(tmp_path / "page.html"))
    assert content["trained"]["topk"] is None
    largest = np.bincount(predictor(image).semantic.ravel(), minlength=CLASSES).argsort()[::-1]
    for denied in ((), largest[:1], largest[:3]):
        wanted = predictor(image, deny=[NAMES[i] for i in denied])
        assert agreement(labels_of(content, denied=denied), wanted) >= ENOUGH


def test_the_page_begins_with_the_wishes_of_the_call(tmp_path):
    predictor = make_predictor(MASK2FORMER, RANKSEG)
    wishes = {"topk": 3, "threshold": 0.3, "deny": [NAMES[2]], "prior": {NAMES[5]: 4}}
    result = predictor(pixels(), explorable=True, **wishes)
    content = content_of(result.explore(tmp_path / "page.html"))
    assert content["start"] == {"topk": 3, "threshold": 0.3, "denied": [2]}
    assert content["trained"] == {"topk": 4, "threshold": 0}
    assert content["prior"] == {NAMES[5]: pytest.approx(4)}
    shown = {row["name"]: row["probability"] for row in content["classes"]}
    for one in result.categories:
        assert shown[one.name] == pytest.approx(one.probability, abs=1e-5)
    assert agreement(labels_of(content, **content["start"]), result) >= ENOUGH


def test_explorable_changes_no_result():
    predictor, images = make_predictor(MASK2FORMER, RANKSEG), [pixels(0), pixels(1)]
    plain = predictor(images, batch=2)
    explorable = predictor(images, batch=2, explorable=True)
    for one, other in zip(plain, explorable, strict=True):
        assert (one.semantic == other.semantic).all() and one.categories == other.categories
        assert one.explorable is None


def test_each_image_of_a_batch_has_its_own_page(tmp_path):
    predictor, images = make_predictor(PIXELS, RANKSEG), [pixels(0), pixels(1)]
    for number, result in enumerate(predictor(images, batch=2, explorable=True)):
        content = content_of(result.explore(tmp_path / f"{number}.html"))
        assert agreement(labels_of(content, **content["start"]), result) >= ENOUGH


def test_a_result_that_has_kept_nothing_says_how_to_keep_it(tmp_path):
    with pytest.raises(ValueError, match="explorable=True"):
        make_predictor(MASK2FORMER)(pixels()).explore(tmp_path / "page.html")


def test_several_passes_cannot_be_explored():
    predictor = make_predictor(MASK2FORMER, {"TEST.SLIDING_WINDOW.ENABLED": True})
    with pytest.raises(ValueError, match=r"one pass; set TEST.SLIDING_WINDOW.ENABLED False"):
        predictor(pixels(), explorable=True)


def test_models_for_videos_have_no_page():
    with pytest.raises(ValueError, match="this model is for videos"):
        check_explorable(SimpleNamespace(is_video=True), None)


def test_save_writes_the_page_where_predict_looks_for_it(tmp_path):
    result = make_predictor(MASK2FORMER)(pixels(), explorable=True)
    paths = result.save(tmp_path, label_png=False, overlay=False, explore=True)
    assert paths == [tmp_path / "0_explore.html"] and paths[0].exists()


def test_names_are_text_and_no_markup(tmp_path):
    result = make_predictor(MASK2FORMER)(pixels(), explorable=True)
    object.__setattr__(result, "name", "</script><b>&.jpg")
    path = result.explore(tmp_path / "page.html")
    text = path.read_text()
    assert content_of(path)["name"] == "</script><b>&.jpg"
    assert "<title>&lt;/script>&lt;b>&amp;.jpg" in text
    assert text.count("</script>") == 2 and "{{" not in text


def test_the_page_asks_for_nothing_else(tmp_path):
    result = make_predictor(MASK2FORMER)(pixels(), explorable=True)
    text = result.explore(tmp_path / "page.html").read_text()
    code = re.sub(r'"(data|picture)":"[^"]*"', "", text)
    assert not re.search(r"https?:|\bsrc=|@import|\bfetch\(|url\(", code)
    assert "default-src 'none'" in text


def test_a_large_picture_is_stored_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_PIXELS", 1000)
    result = make_predictor(MASK2FORMER, RANKSEG)(pixels(), explorable=True)
    content = content_of(result.explore(tmp_path / "page.html"))
    height, width = content["sizes"]["output"]
    assert height * width <= 1000 and content["original"] == [50, 78]
    rows = ((np.arange(height) + 0.5) * 50 / height).astype(int)
    columns = ((np.arange(width) + 0.5) * 78 / width).astype(int)
    assert (labels_of(content, 4) == result.semantic[rows][:, columns]).mean() > 0.97


@pytest.mark.parametrize("options", [(MASK2FORMER,), (PIXELS,)], ids=["regions", "pixels"])
def test_a_page_that_would_be_too_large_has_coarser_maps(options, tmp_path, monkeypatch):
    result = make_predictor(*options)(pixels(), explorable=True)
    path = result.explore(tmp_path / "fine.html")
    size = path.stat().st_size
    assert content_of(path)["shrink"] == 1
    monkeypatch.setattr(page, "MAX_BYTES", size - 1)
    path = result.explore(tmp_path / "coarse.html")
    coarse = content_of(path)
    assert path.stat().st_size < size
    assert coarse["shrink"] == 2 or coarse["maps"]["codes"]["type"] == "uint8"
    assert agreement(labels_of(coarse), result) > 0.9


@pytest.mark.parametrize("ranks", [True, False])
def test_only_categories_that_can_be_reached_are_stored(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr("rankseg_d2.predict.explore.stored._LOGITS", 0)
    monkeypatch.setattr("rankseg_d2.predict.explore.stored._REACH", 1)
    predictor = make_predictor(MASK2FORMER, RANKSEG if ranks else {})
    result = predictor(pixels(), explorable=True)
    content = content_of(result.explore(tmp_path / "page.html"))
    scores = [row["score"] for row in content["classes"]]
    best = np.argsort(scores)[::-1]
    count = 4 if ranks else 1
    assert sorted(content["categories"]) == sorted(best[:count].tolist())
    if ranks:
        assert agreement(labels_of(content, 4), result) >= ENOUGH


def test_allowed_categories_are_stored_however_unlikely(tmp_path, monkeypatch):
    monkeypatch.setattr("rankseg_d2.predict.explore.stored._LOGITS", 0)
    monkeypatch.setattr("rankseg_d2.predict.explore.stored._REACH", 1)
    predictor = make_predictor(MASK2FORMER, RANKSEG)
    worst = [one.name for one in predictor(pixels()).categories[-2:]]
    result = predictor(pixels(), allow=worst, explorable=True)
    content = content_of(result.explore(tmp_path / "page.html"))
    assert {NAMES.index(name) for name in worst} < set(content["categories"])
    assert agreement(labels_of(content, **content["start"]), result) >= ENOUGH


@pytest.mark.parametrize(("bits", "bent"), [(8, True), (8, False), (16, False)])
def test_quantised_maps_are_close(bits, bent):
    maps = np.random.default_rng(0).normal(0, [[[1e-3]], [[1]], [[40]]], (3, 20, 30))
    maps[0, 0, 0] = 5
    stored = packing.quantize(maps.astype(np.float32), bits, bent)
    codes = np.frombuffer(*_bytes(stored["codes"])).reshape(maps.shape)
    values = (
        np.array(stored["low"])[:, None, None] + np.array(stored["step"])[:, None, None] * codes
    )
    if bent:
        values = stored["bend"] * np.sinh(values)
    step = np.ptp(maps, (1, 2))[:, None, None] / (2**bits - 1)
    allowed = 0.03 * np.abs(maps) + 0.02 if bent else 0.51 * step
    assert (np.abs(values - maps) <= allowed).all()


def _bytes(packed):
    import base64
    import zlib

    return zlib.decompress(base64.b64decode(packed["data"])), np.dtype(packed["type"])


def test_a_flat_map_is_exact():
    stored = packing.quantize(np.full((1, 2, 2), 3.25, np.float32), 8, bent=False)
    assert stored["low"] == [3.25] and not any(_bytes(stored["codes"])[0])
    json.dumps(stored, allow_nan=False)
