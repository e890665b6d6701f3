"""Results in the formats of other tools."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from support.predicting import ALL, NAMES, SIZE, THINGS, make_predictor, pixels, ranking_predictor


@pytest.fixture(scope="module")
def result():
    """With all kinds of results."""
    return ranking_predictor(ALL)(pixels(1), deny=["cat"])


def only(result, *kinds):
    others = {"semantic", "panoptic", "instances"} - set(kinds)
    return replace(result, **dict.fromkeys(others))


def test_to_dict_is_json(result):
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (found["name"], found["path"]) == ("0", "")
    assert (found["height"], found["width"]) == SIZE
    for row in found["classes"]:
        number = NAMES.index(row["name"])
        assert row["id"] == 10 + number
        assert row["share"] == pytest.approx((result.semantic == number).mean())
    assert [row["name"] for row in found["classes"]] == list(result.names)
    assert len(found["segments"]) == len(result.panoptic.segments)
    assert len(found["instances"]) == len(result.instances)
    assert len(found["categories"]) == 7 and found["excluded"] == ["cat"]
    assert set(found["speed"]) == {"prepare", "network", "results"}
    plain = json.loads(json.dumps(make_predictor()(pixels()).to_dict(), allow_nan=False))
    assert not plain.keys() & {"segments", "instances", "categories"}


def test_to_coco_of_segments_and_of_labels(result):
    entries = only(result, "panoptic").to_coco(7)
    ids = result.panoptic.ids
    for entry, segment in zip(entries, result.panoptic.segments, strict=True):
        mask = coco.decode(entry["segmentation"]).astype(bool)
        np.testing.assert_array_equal(mask, ids == segment["id"])
        assert entry["image_id"] == 7 and entry["score"] == segment["score"]
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()
    entries = only(result, "semantic").to_coco()
    assert [entry["category_id"] - 10 for entry in entries] == list(result.shares())
    for entry in entries:
        mask = coco.decode(entry["segmentation"]).astype(bool)
        np.testing.assert_array_equal(mask, result.semantic == entry["category_id"] - 10)
    json.dumps(entries)


def test_to_hf_of_segments(result):
    found = only(result, "panoptic").to_hf()
    assert set(found) == {"segmentation", "segments_info"}
    ids = found["segmentation"]
    assert ids.dtype == torch.int32 and tuple(ids.shape) == SIZE
    np.testing.assert_array_equal(
        ids.numpy(), np.where(result.panoptic.ids, result.panoptic.ids, -1)
    )
    for one, own in zip(found["segments_info"], result.panoptic.segments, strict=True):
        assert set(one) == {"id", "label_id", "was_fused", "score"}
        assert (one["id"], one["label_id"]) == (own["id"], own["category_id"])
        assert one["was_fused"] == (own["category_id"] not in THINGS)
        assert 0 < one["score"] == own["score"] < 1
    assert min(one["id"] for one in found["segments_info"]) == 1


def test_to_hf_of_instances_has_the_likely_ones_the_best_on_top(result):
    likely = int((result.instances.scores >= 0.5).sum())
    assert 1 < likely < len(result.instances)
    found = only(result, "instances").to_hf()
    ids, segments = found["segmentation"].numpy(), found["segments_info"]
    assert [one["id"] for one in segments] == list(range(1, likely + 1))
    masks = result.instances.masks[:likely]
    wanted = np.where(masks.any(0), masks.argmax(0) + 1, -1)
    np.testing.assert_array_equal(ids, wanted)
    for one in segments:
        assert one["score"] == pytest.approx(result.instances.scores[one["id"] - 1])
        assert one["label_id"] == result.instances.categories[one["id"] - 1]


def test_to_hf_of_labels(result):
    labels = np.where(result.semantic == result.semantic[0, 0], 7, result.semantic)
    found = replace(only(result, "semantic"), semantic=labels).to_hf()
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), np.where(labels == 7, -1, labels.astype(int)))


def test_to_supervision(result):
    supervision = pytest.importorskip("supervision")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == len(result.instances)
    np.testing.assert_array_equal(found.mask, result.instances.masks)
    np.testing.assert_allclose(found.confidence, result.instances.scores)
    np.testing.assert_allclose(found.xyxy, result.instances.boxes)
    np.testing.assert_array_equal(found.class_id, result.instances.categories)
    places = {one.number: i for i, one in enumerate(result.categories)}
    for i, number in enumerate(found.class_id.tolist()):
        row = {key: values[i] for key, values in found.data.items()}
        assert row["class_name"] == NAMES[number] and row["segment_id"] == i + 1
        assert row["is_thing"] == (number in THINGS) and row["rank"] == places[number]
        assert row["image_score"] == result.categories[places[number]].probability
    some = found[found.confidence > 0.5]  # all of it can be indexed
    assert len(some) == (result.instances.scores > 0.5).sum()


def test_to_supervision_of_segments_of_labels_and_of_nothing(result):
    pytest.importorskip("supervision")
    found = only(result, "panoptic").to_supervision()
    ids = [s["id"] for s in result.panoptic.segments]
    assert found.data["segment_id"].tolist() == ids
    np.testing.assert_array_equal(found.mask, [result.panoptic.ids == i for i in ids])
    found = make_predictor()(pixels()).to_supervision()
    assert (found.data["rank"] == -1).all() and np.isnan(found.data["image_score"]).all()
    nothing = replace(only(result, "semantic"), semantic=np.full(SIZE, 7, np.uint8))
    assert len(nothing.to_supervision()) == 0


def test_to_supervision_without_it_says_how_to_get_it(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match="to_supervision needs: pip install supervision"):
        result.to_supervision()
