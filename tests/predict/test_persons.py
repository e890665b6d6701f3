"""The Predictor with a model of human parsing: a part map, and persons."""

import json

import numpy as np
import pytest
from support.predicting import ALL, NAMES, RANKSEG, THINGS, by_hand, make_predictor, pixels

from rankseg_d2.data.formats import rle

PARSING = {"MODEL.MASK_FORMER.TEST.PARSING_ON": True}


@pytest.mark.parametrize("keys", [{}, RANKSEG | {"MODEL.RANKSEG.TOPK": 6}])
def test_results_are_parts_and_persons(keys, tmp_path):
    predictor, image = make_predictor(keys | PARSING), pixels()
    result, output = predictor(image), by_hand(predictor, image)
    np.testing.assert_array_equal(result.semantic, output["sem_seg_labels"].numpy())
    assert not THINGS & set(np.unique(result.semantic).tolist())
    assert len(result.instances) and set(result.instances.categories.tolist()) <= THINGS
    persons = output["instances"]
    present = persons.pred_masks.flatten(1).any(1).numpy()
    np.testing.assert_array_equal(result.instances.masks, persons.pred_masks.numpy()[present])
    parts = np.where(result.semantic < 7, result.semantic, 0)
    for mask, found in zip(result.instances.masks, persons.pred_parts[present], strict=True):
        np.testing.assert_array_equal(found.numpy(), parts * mask)
    assert {path.suffix for path in result.save(tmp_path, label_png=True)} >= {".png"}


@pytest.mark.parametrize("semantic", [True, False])
def test_each_person_has_its_parts(semantic, tmp_path):
    predictor = make_predictor(PARSING | {"MODEL.MASK_FORMER.TEST.SEMANTIC_ON": semantic})
    result, output = predictor(pixels()), by_hand(predictor, pixels())
    persons = output["instances"]
    persons = persons[persons.pred_masks.flatten(1).any(1)]
    paths = result.save(tmp_path, label_png=False, coco=True)
    (path,) = (path for path in paths if path.suffix == ".json")
    entries, saved = result.to_dict()["instances"], json.loads(path.read_text())
    assert sum(len(entry["parts"]) for entry in entries) > len(persons) == len(saved)
    for i, (entry, one) in enumerate(zip(entries, saved, strict=True)):
        assert one["parts"] == entry["parts"]
        parts = np.zeros(persons.image_size, int)
        for row, part in zip(entry["parts"], result.instances.parts(i), strict=True):
            assert row["name"] == NAMES[part.number] and row["category_id"] == 10 + part.number
            score = float(persons.part_scores[i, part.number])
            assert row["score"] == pytest.approx(score) and score > 0
            np.testing.assert_array_equal(rle.decode(row["segmentation"]), part.mask)
            parts[part.mask] = part.number
        np.testing.assert_array_equal(parts, persons.pred_parts[i].numpy())


def test_the_picture_has_the_parts_of_persons():
    result = make_predictor(PARSING)(pixels())
    picture = result.plot(ranking=False, alpha=1, outlines=False, text=False)
    parts = [part for i in result.instances.likely() for part in result.instances.parts(i)]
    assert parts
    for part in parts:
        drawn = (picture[part.mask] == result.classes.colors[part.number]).all(1)
        assert drawn.any(), part.number


def test_objects_have_no_parts():
    result = make_predictor(ALL)(pixels())
    assert result.instances.parts(0) == [] and "parts" not in result.to_coco()[0]


def test_no_persons_have_no_parts():
    predictor = make_predictor(PARSING, {"MODEL.MASK_FORMER.TEST.SCORE_THRESHOLD": 1.0})
    result = predictor(pixels())
    assert len(result.instances) == 0 and not result.instances.part_map.any()
    assert result.to_coco() == []


def test_no_page_explores_persons():
    with pytest.raises(ValueError, match="explorable=True is not for human parsing"):
        make_predictor(PARSING)(pixels(), explorable=True)


def test_squares_are_predicted_at_the_size_of_the_picture():
    keys = PARSING | {"INPUT.KEEP_RATIO": False, "INPUT.MIN_SIZE_TEST": 48}
    predictor = make_predictor(keys)
    sizes = []
    network = predictor.model.network
    predictor.model.network = lambda frames, *more: (
        sizes.append(tuple(frames.shape[-2:])) or network(frames, *more)
    )
    assert predictor(pixels(0, (30, 50))).semantic.shape == (30, 50)
    assert sizes == [(64, 64)]  # 48, padded to a multiple of 32
