"""AP of entities against COCOeval on masks that plain loops have made free of overlap."""

import contextlib
import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.evaluation_data import read_scene, registered, run_evaluator, to_instances, unregister

from rankseg_d2.data.datasets.entities import register_entities
from rankseg_d2.evaluation import EntityEvaluator, InstanceEvaluator

approx = partial(pytest.approx, nan_ok=True)  # APl is NaN without large ones
NAME, VIEW = "test_entity_panoptic", "test_entity_view"
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A panoptic data set, and its entities under VIEW."""
    monkeypatch.setattr("rankseg_d2.evaluation.instance.find_spec", lambda name: None)
    register_entities(VIEW, NAME)
    yield from registered(NAME, tmp_path / "data")
    unregister(VIEW)


def outputs_of(records, seed=0):
    """Shifted copies of all segments, crowds too, of any class; lines, and masks of no pixel."""
    rng, outputs = np.random.default_rng(seed), []
    for record in records:
        ids, infos = read_scene(record)
        line, empty = np.zeros((2, *ids.shape), bool)
        line[10, 5:40] = True
        masks = [line, empty]
        for info in infos:
            for _ in range(rng.integers(1, 3)):
                masks.append(np.roll(ids == info["id"], rng.integers(-3, 4, 2), (0, 1)))
        masks = torch.from_numpy(np.stack(masks))
        scores = torch.from_numpy(rng.permutation(len(masks)) / len(masks)).float()
        classes = torch.from_numpy(rng.integers(0, 5, len(masks)))
        outputs.append({"instances": to_instances(masks, scores, classes)})
    return outputs


def own_pixels(instances):
    """(score, mask) of what is left to each, by loops."""
    taken = np.zeros(instances.image_size, bool)
    found = []
    for i in np.argsort(-instances.scores.numpy(), kind="stable"):
        mask = instances.pred_masks[i].numpy() & ~taken
        taken |= mask
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if len(rows) and rows[-1] > rows[0] and columns[-1] > columns[0]:
            found.append((float(instances.scores[i]), mask))
    return found


def encode(mask):
    return mask_util.encode(np.asfortranarray(mask, np.uint8))


def coco_of(truths, sizes):
    images = [{"id": i, "height": h, "width": w} for i, (h, w) in sizes.items()]
    found = COCO()
    found.dataset = {"images": images, "categories": [{"id": 1}], "annotations": truths}
    found.createIndex()
    return found


def plain_ap(records, outputs, segments_of):
    """COCOeval's twelve numbers in percent; `segments_of` gives the true masks of a record."""
    sizes = {record["image_id"]: (record["height"], record["width"]) for record in records}
    parts = [], []
    for record, output in zip(records, outputs, strict=True):
        true = [(None, mask) for mask in segments_of(record)]
        for part, masks in zip(parts, (true, own_pixels(output["instances"])), strict=True):
            for score, mask in masks:
                facts = {"id": len(part) + 1, "image_id": record["image_id"], "category_id": 1}
                facts |= {"segmentation": encode(mask), "area": int(mask.sum()), "iscrowd": 0}
                part.append(facts | {"score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*(coco_of(part, sizes) for part in parts), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * x if x >= 0 else np.nan for x in evaluation.stats[:9]]


def all_segments(record):
    ids, infos = read_scene(record)
    masks = [ids == info["id"] for info in infos if not info["iscrowd"]]
    return [mask for mask in masks if mask.any()]


def things(record):
    ids, infos = read_scene(record)
    chosen = [x["id"] for x in infos if not x["iscrowd"] and x["category_id"] in (7, 12)]
    return [ids == i for i in chosen if (ids == i).any()]


@pytest.mark.parametrize(("name", "segments_of"), [(VIEW, all_segments), (NAME, things)])
def test_ap_is_cocos_with_one_category_and_without_overlap(data, tmp_path, name, segments_of):
    outputs = outputs_of(data)
    found = run_evaluator(EntityEvaluator(name, str(tmp_path)), data, outputs)
    assert list(found) == ["entity"] and list(found["entity"]) == METRICS
    assert list(found["entity"].values()) == approx(plain_ap(data, outputs, segments_of))
    assert found["entity"]["AP"] > 3
    table = json.loads((tmp_path / "entity.json").read_text())
    assert table["metrics"]["AP"] == found["entity"]["AP"] and len(table["rows"]) == 1


def test_the_true_entities_have_100_and_categories_do_not_matter(data):
    outputs = []
    for record in data:
        masks = torch.from_numpy(np.stack(all_segments(record)))
        scores = torch.linspace(1, 0.5, len(masks))
        classes = torch.arange(len(masks))
        outputs.append({"instances": to_instances(masks, scores, classes)})
    kept = [own_pixels(output["instances"]) for output in outputs]
    assert sum(map(len, kept)) == sum(len(all_segments(record)) for record in data)
    found = run_evaluator(EntityEvaluator(VIEW), data, outputs)["entity"]
    assert found["AP"] == pytest.approx(100)


def test_masks_that_do_not_overlap_stay_as_they_are(data):
    outputs = outputs_of(data, seed=1)
    free = []
    for output in outputs:
        scores, masks = zip(*own_pixels(output["instances"]), strict=True)
        masks, scores = torch.from_numpy(np.stack(masks)), torch.tensor(scores)
        free.append({"instances": to_instances(masks, scores, torch.zeros(len(masks)).long())})
    found = [run_evaluator(EntityEvaluator(VIEW), data, some) for some in (outputs, free)]
    assert list(found[0]["entity"].values()) == approx(list(found[1]["entity"].values()))


def test_images_without_predictions_count(data):
    nothing = torch.zeros(0, *(data[0]["height"], data[0]["width"]), dtype=torch.bool)
    outputs = outputs_of(data)
    outputs[0] = {"instances": to_instances(nothing, torch.zeros(0), torch.zeros(0).long())}
    found = run_evaluator(EntityEvaluator(VIEW), data, outputs)["entity"]
    assert list(found.values()) == approx(plain_ap(data, outputs, all_segments))


def test_a_missing_json_is_an_error_before_the_training(data, tmp_path):
    (tmp_path / "data/instances.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances.json, does not exist. Make it"):
        EntityEvaluator(NAME).check_ground_truth()


def test_other_results_are_refused_with_the_key_to_set(data):
    with pytest.raises(ValueError, match=r"no instances, only sem_seg. Set .*ENTITY_ON True"):
        EntityEvaluator(VIEW).process(data[:1], [{"sem_seg": 0}])


def test_records_without_segments_are_refused(data):
    DatasetCatalog.register("test_entity_none", lambda: [{"file_name": "a.jpg", "image_id": 1}])
    MetadataCatalog.get("test_entity_none").set(evaluator_type="entity_seg")
    register_entities("test_entity_none_view", "test_entity_none")
    try:
        with pytest.raises(ValueError, match=r"'a.jpg' has no pan_seg_file_name, which entities"):
            EntityEvaluator("test_entity_none").check_ground_truth()
        with pytest.raises(ValueError, match=r"a.jpg has no pan_seg_file_name or no segments_info"):
            DatasetCatalog.get("test_entity_none_view")
    finally:
        unregister("test_entity_none")
        unregister("test_entity_none_view")


def test_the_instance_evaluator_is_as_it_was(data):
    found = run_evaluator(InstanceEvaluator(NAME), data, outputs_of(data))
    assert "AP-cat" in found["segm"]
