"""Persons with parts, from one set of masks whose classes are parts and the person."""

from dataclasses import replace

import pytest
import torch
from support.small import make_config

from rankseg_d2.modeling.passes import in_passes
from rankseg_d2.modeling.results import ResultOptions, Sizes, mask_result
from rankseg_d2.ranking import Ranking

CLASSES, PERSON, QUERIES, SIZE = 6, 5, 7, (12, 16)
SIZES = Sizes(SIZE, SIZE, SIZE)
OPTIONS = ResultOptions(parsing=True, resize_first=True, thing_ids=frozenset({PERSON}))


def outputs(seed=0, columns=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(QUERIES, columns + 1, generator=generator)
    return logits, 4 * torch.randn(QUERIES, 1, 6, 8, generator=generator)


def test_a_person_is_a_mask_and_the_parts_within():
    logits, masks = outputs()
    result = mask_result(logits, masks, None, SIZES, OPTIONS, is_video=False)
    plain = ResultOptions(resize_first=True, excluded=frozenset({PERSON}))
    labels = result["sem_seg_labels"]
    assert PERSON not in labels and len(labels.unique()) > 2
    scores = result["sem_seg_scores"]
    persons = result["instances"]
    assert len(persons) == QUERIES and (persons.pred_classes == PERSON).all()
    assert (persons.scores.diff() <= 0).all()
    assert torch.equal(persons.pred_parts, (labels * persons.pred_masks).to(torch.uint8))
    # no-object and person have their share of the probabilities, which `excluded` gives to others
    assert not torch.equal(
        mask_result(logits, masks, None, SIZES, plain, is_video=False)["sem_seg_scores"], scores
    )
    share = scores.max(0).values / scores.sum(0)
    for person, score, parts, mask in zip(
        persons.part_scores, persons.scores, persons.pred_parts, persons.pred_masks, strict=True
    ):
        for part in range(CLASSES):
            where = mask & (parts == part)
            expected = score * share[where].mean() if part and where.any() else torch.tensor(0.0)
            assert person[part] == pytest.approx(expected.item(), abs=1e-5)


def test_persons_are_those_of_instance_segmentation():
    logits, masks = outputs(1)
    found = mask_result(logits, masks, None, SIZES, OPTIONS, is_video=False)["instances"]
    options = ResultOptions(semantic=False, instance=True, resize_first=True)
    many = replace(options, detections_per_image=QUERIES * CLASSES)
    all_of_them = mask_result(logits, masks, None, SIZES, many, is_video=False)["instances"]
    persons = all_of_them[all_of_them.pred_classes == PERSON]
    assert torch.equal(found.scores, persons.scores)
    assert torch.equal(found.pred_masks, persons.pred_masks)


@pytest.mark.parametrize(("kept", "count"), [((5, 2, 0), QUERIES), ((2, 0, 3), 0), ((5,), QUERIES)])
def test_a_ranking_may_keep_the_person_or_no_part(kept, count):
    logits, masks = outputs(2, len(kept))
    ranking = Ranking(torch.rand(1, CLASSES), torch.tensor([kept]), None)
    result = mask_result(logits, masks, ranking, SIZES, OPTIONS, is_video=False)
    persons = result["instances"]
    assert len(persons) == count
    present = set(persons.pred_parts.unique().tolist()) | {0}
    assert present <= {0, *kept} - {PERSON}
    assert set(result["sem_seg_classes"].tolist()) == set(kept) - {PERSON}
    if kept == (5,):
        assert (result["sem_seg_labels"] == CLASSES).all()
        assert not persons.pred_parts.any() and not persons.part_scores.any()


def test_parsing_needs_things_and_no_other_instances():
    with pytest.raises(ValueError, match="PARSING_ON gives persons as instances already"):
        replace(OPTIONS, instance=True)
    logits, masks = outputs()
    with pytest.raises(ValueError, match="PARSING_ON needs to know which classes are things"):
        mask_result(logits, masks, None, SIZES, replace(OPTIONS, thing_ids=None), is_video=False)


@pytest.mark.parametrize(
    "options, key",
    [(OPTIONS, "PARSING_ON makes persons"),
     (ResultOptions(semantic=False, entity=True), "ENTITY_ON makes entities")],
)  # fmt: skip
@pytest.mark.parametrize("passes", ["SLIDING_WINDOW", "AUG"])
def test_several_passes_make_no_persons_or_entities(options, key, passes):
    model = torch.nn.Module()
    model.result_options = options
    cfg = make_config({f"TEST.{passes}.ENABLED": True})
    wanted = rf"TEST\.{key}: set TEST\.SLIDING_WINDOW\.ENABLED and TEST\.AUG\.ENABLED False"
    with pytest.raises(ValueError, match=wanted):
        in_passes(cfg, model)
    cfg.TEST[passes].ENABLED = False
    assert in_passes(cfg, model) is model
