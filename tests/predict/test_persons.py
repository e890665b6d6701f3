"""The Predictor with a model of human parsing: a part map, and persons."""

import numpy as np
import pytest
from support.predicting import RANKSEG, THINGS, by_hand, make_predictor, pixels

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
