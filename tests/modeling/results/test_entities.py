"""Entities: each pixel has one owner, the best one; against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.modeling.results import ResultOptions, Sizes, mask_result
from rankseg_d2.modeling.results.entities import object_instances, without_overlap
from rankseg_d2.modeling.results.resizing import probability_maps

SHAPE = Sizes(padded=(32, 48), image=(25, 43), output=(31, 29))
ENTITY = ResultOptions(semantic=False, entity=True, resize_first=True)


def objects(count=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = 6 * torch.randn(count, 1, 3, 4, generator=generator)
    masks = F.interpolate(masks, (8, 12), mode="bilinear", align_corners=False)
    return torch.rand(count, generator=generator), torch.arange(count), masks


def plain_entities(scores, masks, rescore):
    """[(score, number, mask)], best first."""
    probabilities = probability_maps(masks, SHAPE)[:, 0].numpy()
    taken, found = np.zeros(SHAPE.output, bool), []
    for i in np.argsort(-scores.numpy()):
        inside = probabilities[i] > 0.5
        mask = inside & ~taken
        taken |= inside
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if len(rows) and rows[-1] > rows[0] and columns[-1] > columns[0]:
            factor = probabilities[i][mask].mean() if rescore else 1
            found.append((float(scores[i]) * factor, i, mask))
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("rescore", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_object_owns_a_pixel(rescore, seed):
    scores, categories, masks = objects(seed=seed)
    options = replace(ENTITY, rescore=rescore)
    found = object_instances(scores, categories, masks, SHAPE, options)
    expected = plain_entities(scores, masks, rescore)
    assert found.pred_classes.tolist() == [i for _, i, _ in expected]
    assert found.scores.tolist() == pytest.approx([score for score, _, _ in expected])
    for mask, box, (_, _, true) in zip(
        found.pred_masks, found.pred_boxes.tensor.tolist(), expected, strict=True
    ):
        assert (mask.numpy() == true).all()
        (y, x) = true.nonzero()
        assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_objects_below_the_threshold_are_dropped_after_the_rescoring():
    scores, categories, masks = objects()
    every = object_instances(scores, categories, masks, SHAPE, replace(ENTITY, rescore=True))
    least = float(every.scores[2])
    options = replace(ENTITY, rescore=True, score_threshold=least)
    found = object_instances(scores, categories, masks, SHAPE, options)
    assert torch.equal(found.scores, every.scores[:3])
    assert torch.equal(found.pred_masks, every.pred_masks[:3])


def test_without_objects_there_are_no_instances():
    scores, categories, masks = objects()
    found = object_instances(scores[:0], categories[:0], masks[:0], SHAPE, ENTITY)
    assert len(found) == 0 and found.pred_masks.shape == (0, *SHAPE.output)
    masks, kept = without_overlap(found.pred_masks)
    assert masks.shape == (0, *SHAPE.output) and kept.shape == (0,)


def test_lines_are_dropped_but_keep_their_pixels():
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 2] = masks[1, 1:4, 1:5] = masks[2, :, 7] = True
    found, kept = without_overlap(masks)
    assert kept.tolist() == [False, True, False]
    assert torch.equal(found[1], masks[1] & ~masks[0])


def test_queries_become_entities():
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(9, 2, generator=generator)  # one class, and no-object
    _, _, masks = objects()
    found = mask_result(logits, masks, None, SHAPE, ENTITY, is_video=False)
    assert list(found) == ["instances"]
    expected = plain_entities(logits.softmax(-1)[:, 0], masks, rescore=False)
    assert found["instances"].scores.tolist() == pytest.approx([x for x, _, _ in expected])
    masks = found["instances"].pred_masks.numpy()
    assert all((a == b).all() for a, (_, _, b) in zip(masks, expected, strict=True))
    assert (found["instances"].pred_classes == 0).all()


@pytest.mark.parametrize("other", ["semantic", "panoptic", "instance"])
def test_entities_are_the_only_results_of_a_model(other):
    with pytest.raises(ValueError, match="ENTITY_ON is for models of one class, whose only"):
        replace(ENTITY, **{other: True})
