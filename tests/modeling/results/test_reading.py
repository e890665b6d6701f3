"""Reading a model's result: the same answer, in whatever form the result has it."""

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from rankseg_d2.modeling.results.reading import (
    label_map,
    label_maps,
    panoptic_segments,
    predicted_labels,
    rle_masks,
)

IDS = torch.tensor([[7, 7, 0], [7, 7, 0], [9, 9, 9]])
SEGMENTS = [{"id": 7, "category_id": 2}, {"id": 9, "category_id": 1}]


def test_labels_of_segments_and_pixels_of_none():
    labels, ids = predicted_labels({"panoptic_seg": (IDS, SEGMENTS)}, 3)
    assert labels.tolist() == [[2, 2, 3], [2, 2, 3], [1, 1, 1]]
    assert (ids == IDS.numpy()).all()
    labels, ids = predicted_labels({"panoptic_seg": (torch.zeros(2, 2).int(), [])}, 3)
    assert (labels == 3).all() and not ids.any()


def test_labels_of_a_semantic_result_have_no_segment_ids():
    scores = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    ranked = {"sem_seg_scores": scores[order], "sem_seg_classes": order}
    for result in ({"sem_seg": scores}, {"sem_seg_labels": scores.argmax(0)}, ranked):
        labels, ids = predicted_labels(result | {"instances": "not read"}, 3)
        assert (labels == scores.argmax(0).numpy()).all() and ids is None


def test_the_most_certain_instance_lies_on_top_and_doubtful_ones_are_left_out():
    masks = torch.zeros(3, 2, 4, dtype=torch.bool)
    masks[0, 0], masks[1, :, :3], masks[2] = True, True, True
    instances = Instances(
        (2, 4),
        pred_masks=masks,
        scores=torch.tensor([0.9, 0.6, 0.4]),
        pred_classes=torch.tensor([1, 0, 2]),
    )
    labels, ids = predicted_labels({"instances": instances}, 5)
    assert labels.tolist() == [[1, 1, 1, 1], [0, 0, 0, 5]]
    assert len(np.unique(ids)) == 3
    labels, _ = predicted_labels({"instances": instances}, 5, min_score=0.95)
    assert (labels == 5).all()


def test_segments_by_label_divisor():
    codes = torch.tensor([[-1, 200, 201], [-1, 100, 100]])
    ids, segments = panoptic_segments({"panoptic_seg": (codes, None)}, label_divisor=100)
    assert (ids == codes.numpy() + 1).all()
    assert {(s["id"], s["category_id"]) for s in segments} == {(201, 2), (202, 2), (101, 1)}


@pytest.mark.parametrize(
    "read, message",
    [
        (label_map, "no sem_seg_labels or sem_seg or sem_seg_scores, only x, y.*SEMANTIC_ON"),
        (label_maps, "no sem_seg_frames or sem_seg_labels, only x, y.*SEMANTIC_ON"),
        (panoptic_segments, "no panoptic_seg, only x, y.*PANOPTIC_ON"),
        (rle_masks, "no pred_masks, only x, y.*INSTANCE_ON"),
    ],
)
def test_a_result_of_another_task_is_an_error(read, message):
    with pytest.raises(ValueError, match=message):
        read({"x": 0, "y": 0})
