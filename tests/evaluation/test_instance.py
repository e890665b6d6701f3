"""COCO's AP against detectron2's evaluator where it is installed, and plain loops always."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode, Instances
from support.evaluation_data import (
    CONTIGUOUS,
    instance_annotations,
    instance_outputs,
    read_scene,
    register,
    registered,
    run_evaluator,
    to_instances,
    unregister,
)

import rankseg_d2
from rankseg_d2.evaluation import InstanceEvaluator, check_evaluation

NAME = "test_instances"


@pytest.fixture(params=["pycocotools", "faster_coco_eval"])
def data(tmp_path, request, monkeypatch):
    """A small data set; both libraries must give the same results."""
    if request.param == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    else:
        monkeypatch.setattr("rankseg_d2.evaluation.instance.find_spec", lambda name: None)
    yield from registered(NAME, tmp_path / "data")


def evaluate(records, outputs, **options):
    return run_evaluator(InstanceEvaluator(NAME, **options), records, outputs)


def plain_ap(records, outputs, category, threshold):
    """AP of one category at one IoU, by loops over masks."""
    detections, total = [], 0
    for record, output in zip(records, outputs, strict=True):
        ids, infos = read_scene(record)
        true = [(ids == x["id"], x["iscrowd"]) for x in infos if x["category_id"] == category]
        true = sorted((x for x in true if x[0].any()), key=lambda x: x[1])  # crowds last
        total += sum(not is_crowd for _, is_crowd in true)
        found, taken = output["instances"], set()
        for i in (found.pred_classes == CONTIGUOUS[category]).nonzero()[:, 0].tolist():
            mask, best, match = found.pred_masks[i].numpy(), threshold, None
            for k, (true_mask, is_crowd) in enumerate(true):
                if k in taken and not is_crowd:
                    continue
                if match is not None and not true[match][1] and is_crowd:
                    break
                union = mask.sum() if is_crowd else (mask | true_mask).sum()
                iou = (mask & true_mask).sum() / union
                if iou >= best:
                    best, match = iou, k
            taken.add(match)
            if match is None or not true[match][1]:
                detections.append((found.scores[i].item(), match is not None))
    detections.sort(key=lambda detection: -detection[0])
    hits = np.cumsum([hit for _, hit in detections])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / total, np.linspace(0, 1, 101))
    return np.append(precision, 0)[at].mean()


def test_equals_plain_loops(data):
    outputs = instance_outputs(data)
    found = evaluate(data, outputs)["segm"]
    ap = {
        category: [
            plain_ap(data, outputs, category, threshold) for threshold in np.arange(10, 20) / 20
        ]
        for category in CONTIGUOUS
    }
    assert found["AP-cat"] == pytest.approx(100 * np.mean(ap[7]), abs=1e-9)
    assert found["AP-dog"] == pytest.approx(100 * np.mean(ap[12]), abs=1e-9)
    assert found["AP"] == pytest.approx(100 * np.mean([*ap.values()]), abs=1e-9)
    assert found["AP50"] == pytest.approx(100 * np.mean([ap[7][0], ap[12][0]]), abs=1e-9)
    assert found["AP75"] == pytest.approx(100 * np.mean([ap[7][5], ap[12][5]]), abs=1e-9)
    assert np.isnan(found["AP-unicorn"])
    assert np.isnan(found["APl"])  # no true object is that large
    assert 5 < found["AP"] < 95


def test_equals_detectron2(data, tmp_path):
    if rankseg_d2.engine_name() != "detectron2":
        pytest.skip("compares with the real detectron2, which is not installed")
    from detectron2.evaluation import COCOEvaluator

    metadata = MetadataCatalog.get(NAME)
    content = json.loads(open_text(metadata.json_file))
    for annotation in content["annotations"]:
        annotation["id"] += 1  # COCOeval never matches an object with the id 0
    ids = sorted(metadata.thing_dataset_id_to_contiguous_id)
    (tmp_path / "gt.json").write_text(json.dumps(content))
    outputs = instance_outputs(data)
    # detectron2 wants things to be the first contiguous ids
    theirs_name = "test_instances_theirs"
    register(
        theirs_name,
        data,
        {
            "json_file": str(tmp_path / "gt.json"),
            "thing_classes": ["cat", "dog", "unicorn"],
            "thing_dataset_id_to_contiguous_id": {number: i for i, number in enumerate(ids)},
        },
    )
    try:
        theirs = COCOEvaluator(
            theirs_name, ("bbox", "segm"), distributed=False, use_fast_impl=False
        )
        theirs.reset()
        renamed = []
        for output in outputs:
            instances = Instances(
                output["instances"].image_size, **output["instances"].get_fields()
            )
            instances.pred_classes = instances.pred_classes // 2  # 1, 3 -> 0, 1
            renamed.append({"instances": instances})
        theirs.process(data, renamed)
        expected = theirs.evaluate()
    finally:
        unregister(theirs_name)
    ours = evaluate(data, outputs, tasks=("bbox", "segm"))
    for task in ("bbox", "segm"):
        same = {name: ours[task][name] for name in expected[task]}
        assert same == pytest.approx(dict(expected[task]), abs=1e-9, nan_ok=True)


def open_text(path):
    with open(path) as file:
        return file.read()


def with_annotations(records):
    """Records as detectron2 has them: contiguous ids and boxes in one of its modes."""
    for record in records:
        record["annotations"] = instance_annotations(*read_scene(record), record["image_id"])
        for annotation in record["annotations"]:
            annotation["category_id"] = CONTIGUOUS[annotation["category_id"]]
            del annotation["area"], annotation["id"]
            annotation["bbox_mode"] = BoxMode.XYWH_ABS
    return records


def test_records_say_the_same_as_the_json(data):
    outputs = instance_outputs(data)
    expected = evaluate(data, outputs, tasks=("bbox", "segm"))
    metadata = MetadataCatalog.get(NAME).as_dict()
    unregister(NAME)
    del metadata["json_file"]
    register(NAME, with_annotations(data), metadata)
    found = evaluate(data, outputs, tasks=("bbox", "segm"))
    for task, metrics in expected.items():
        assert found[task] == pytest.approx(metrics, nan_ok=True)


def test_ids_of_images_may_be_names(data):
    outputs = instance_outputs(data)
    expected = evaluate(data, outputs)["segm"]
    metadata = MetadataCatalog.get(NAME)
    content = json.loads(open_text(metadata.json_file))
    for image in content["images"]:
        image["id"] = f"ADE_val_{image['id']:08d}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"ADE_val_{annotation['image_id']:08d}"
    with open(metadata.json_file, "w") as file:
        json.dump(content, file)
    named = [record | {"image_id": f"ADE_val_{record['image_id']:08d}"} for record in data]
    assert evaluate(named, outputs)["segm"] == pytest.approx(expected, nan_ok=True)


def test_polygons_and_plain_rle_are_read():
    from rankseg_d2.evaluation.ground_truth.instances import coco_annotation

    record = {"image_id": "a", "height": 10, "width": 12}
    polygon = [[2, 3, 6, 3, 6, 8, 2, 8]]
    counts = [3 + 10 * 2] + [5, 5] * 3 + [5, 12 * 10 - 3 - 20 - 35]
    for segmentation in (polygon, {"size": [10, 12], "counts": counts}):
        annotation = {"category_id": 0, "segmentation": segmentation}
        found = coco_annotation(annotation, record)
        assert (found["area"], found["bbox"], found["iscrowd"]) == (20, [2, 3, 4, 5], 0)
    annotation |= {"bbox": np.array([1, 2, 3, 5]), "bbox_mode": BoxMode.XYXY_ABS}
    assert coco_annotation(annotation, record)["bbox"] == [1, 2, 2, 3]


def test_no_detection_at_all_is_zero(data):
    outputs = instance_outputs(data)
    none = [{"instances": output["instances"][:0]} for output in outputs]
    assert evaluate(data, none)["segm"]["AP"] == 0


def test_predicted_stuff_is_left_out(data):
    outputs = instance_outputs(data)
    expected = evaluate(data, outputs)["segm"]
    for output in outputs:
        extra = output["instances"][:1]
        extra = to_instances(extra.pred_masks, extra.scores + 1, torch.tensor([4]))  # sand
        output["instances"] = Instances.cat([extra, output["instances"]])
    assert evaluate(data, outputs)["segm"] == pytest.approx(expected, nan_ok=True)


def test_class_table_and_predictions_are_written(data, tmp_path):
    outputs = instance_outputs(data)
    metrics = evaluate(data, outputs, output_folder=str(tmp_path), save_predictions=True)["segm"]
    rows = json.loads((tmp_path / "segm.json").read_text())["rows"]
    assert [(row["id"], row["class"]) for row in rows] == [(7, "cat"), (12, "dog"), (21, "unicorn")]
    assert rows[1]["AP"] == metrics["AP-dog"]
    for name in ("AP", "AP50", "AP75", "APs", "APm"):  # the mean over the classes that are present
        assert np.mean([row[name] for row in rows[:2]]) == pytest.approx(metrics[name])
    assert rows[2]["AP50"] is None
    written = json.loads((tmp_path / "instances_predictions.json").read_text())
    assert len(written) == sum(len(output["instances"]) for output in outputs)
    assert written[0].keys() == {"image_id", "category_id", "score", "segmentation", "bbox"}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda sample, output: sample.update(image_id=77), "image 77 is not in the ground truth"),
        (lambda sample, output: output.pop("instances"), "no instances, only x.*INSTANCE_ON"),
        (
            lambda sample, output: output.update(
                instances=to_instances(torch.ones(1, 4, 5) > 0, torch.ones(1), torch.ones(1).int())
            ),
            r"masks of image 0 have height and width \(4, 5\).*says \(60, 80\)",
        ),
        (
            lambda sample, output: output["instances"].pred_classes.fill_(7),
            "image 0 has the class 7, but the data set 'test_instances' has 7 classes",
        ),
    ],
)
def test_wrong_predictions_are_named(data, change, message):
    sample, output = dict(data[0]), instance_outputs(data[:1])[0] | {"x": 0}
    change(sample, output)
    with pytest.raises(ValueError, match=message):
        evaluate([sample], [output])


def test_wrong_ground_truth_and_tasks_are_named(data, tmp_path):
    with pytest.raises(ValueError, match="'segm', 'bbox' or both; got 'keypoints'"):
        InstanceEvaluator(NAME, tasks=("segm", "keypoints"))
    path = MetadataCatalog.get(NAME).json_file
    with open(path, "w") as file:
        file.write('{"images": [], "categories": []}')
    with pytest.raises(ValueError, match="instances.json has no list 'annotations'"):
        evaluate(data, instance_outputs(data))


def test_an_image_that_comes_twice_is_an_error(data):
    outputs = instance_outputs(data)
    with pytest.raises(ValueError, match="was predicted 2 times"):
        evaluate([*data, data[0]], [*outputs, outputs[0]])


def test_what_ap_needs_is_known_before_the_evaluation(data):
    path = Path(MetadataCatalog.get(NAME).json_file)
    for key, text in (("area", "has no area"), ("segmentation", "has no segmentation"),
                      ("iscrowd", "has no iscrowd")):  # fmt: skip
        content = json.loads(path.read_text())
        del content["annotations"][1][key]
        path.with_name("other.json").write_text(json.dumps(content))
        metadata = MetadataCatalog.get(NAME)
        del metadata.json_file
        metadata.json_file = str(path.with_name("other.json"))
        with pytest.raises(ValueError, match=text):
            check_evaluation(InstanceEvaluator(NAME))
