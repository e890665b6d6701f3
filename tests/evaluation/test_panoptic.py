"""Panoptic quality against panopticapi where it is installed, and always against plain loops."""

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from support.evaluation_data import (
    CATEGORIES,
    enlarged_output,
    ground_truth_as_prediction,
    panoptic_outputs,
    read_scene,
    register,
    registered,
    run_evaluator,
    unregister,
    write,
)

from rankseg_d2.evaluation import PanopticEvaluator

NAME = "test_panoptic"


@pytest.fixture
def data(tmp_path):
    yield from registered(NAME, tmp_path / "data")


@pytest.fixture
def from_records(tmp_path):
    """The same without a json: only the records know the segments."""
    records, metadata = write(tmp_path / "data")
    del metadata["panoptic_json"]
    register(NAME, records, metadata)
    yield records
    unregister(NAME)


def evaluate(records, outputs, batch=5, **options):
    evaluator = PanopticEvaluator(NAME, **options)
    return run_evaluator(evaluator, records, outputs, batch)["panoptic_seg"]


def compare(records, outputs):
    evaluator = PanopticEvaluator(NAME)
    evaluator.process(records, outputs)
    evaluator.background.finish()  # comparisons in the background too


def plain_counts(records, outputs):
    """[iou, tp, fp, fn] per category id, by loops over masks."""
    counts = defaultdict(lambda: np.zeros(4))
    for record, output in zip(records, outputs, strict=True):
        ids, infos = read_scene(record)
        result, segments = output["panoptic_seg"]
        result, void = result.numpy(), ids == 0
        found_true, found_predicted = set(), set()
        for info in infos:
            for segment in segments:
                category = CATEGORIES[segment["category_id"]]["id"]
                mask, true = result == segment["id"], ids == info["id"]
                common = (mask & true).sum()
                union = mask.sum() + info["area"] - common - (mask & void).sum()
                same = info["category_id"] == category and not info["iscrowd"]
                if same and common / union > 0.5:
                    counts[category] += [common / union, 1, 0, 0]
                    found_true.add(info["id"])
                    found_predicted.add(segment["id"])
        crowds = {info["category_id"]: ids == info["id"] for info in infos if info["iscrowd"]}
        for info in infos:
            if info["id"] not in found_true and not info["iscrowd"]:
                counts[info["category_id"]][3] += 1
        for segment in segments:
            if segment["id"] in found_predicted:
                continue
            category = CATEGORIES[segment["category_id"]]["id"]
            mask = result == segment["id"]
            excused = (mask & void).sum()
            if category in crowds:
                excused += (mask & crowds[category]).sum()
            counts[category][2] += excused / mask.sum() <= 0.5
    return counts


def plain_metrics(counts):
    metrics = {}
    for suffix, wanted in (("", {0, 1}), ("_th", {1}), ("_st", {0})):
        rows = [
            counts[c["id"]] for c in CATEGORIES if c["isthing"] in wanted and counts[c["id"]].any()
        ]
        sq = [iou / tp if tp else 0 for iou, tp, _, _ in rows]
        rq = [tp / (tp + fp / 2 + fn / 2) for _, tp, fp, fn in rows]
        metrics["PQ" + suffix] = 100 * np.mean(np.multiply(sq, rq))
        metrics["SQ" + suffix] = 100 * np.mean(sq)
        metrics["RQ" + suffix] = 100 * np.mean(rq)
    return metrics


def test_equals_plain_loops(data):
    outputs = panoptic_outputs(data)
    counts = plain_counts(data, outputs)
    assert all(total > 3 for total in sum(counts.values()))  # every rule is used
    assert evaluate(data, outputs) == pytest.approx(plain_metrics(counts), abs=1e-9)


def test_records_say_the_same_as_the_json(from_records):
    outputs = panoptic_outputs(from_records)
    expected = plain_metrics(plain_counts(from_records, outputs))
    assert evaluate(from_records, outputs) == pytest.approx(expected, abs=1e-9)


def test_equals_panopticapi(data, tmp_path):
    """By files in COCO's format, which the evaluator writes when asked."""
    evaluation = pytest.importorskip("panopticapi.evaluation")
    ours = evaluate(data, panoptic_outputs(data), output_folder=tmp_path, save_predictions=True)
    metadata = MetadataCatalog.get(NAME)
    theirs = evaluation.pq_compute(
        metadata.panoptic_json,
        str(tmp_path / "panoptic_predictions.json"),
        metadata.panoptic_root,
        str(tmp_path / "panoptic_predictions"),
    )
    for suffix, group in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        for name in ("PQ", "SQ", "RQ"):
            expected = 100 * theirs[group][name.lower()]
            assert ours[name + suffix] == pytest.approx(expected, abs=1e-9)
    table = json.loads((tmp_path / "panoptic_seg.json").read_text())["rows"]
    for row in table:
        expected = 100 * theirs["per_class"][row["id"]]["pq"]
        assert (row["PQ"] or 0) == pytest.approx(expected, abs=1e-9)


def one_scene(tmp_path, ids, infos):
    """Write one image over the first of the data set; areas are those of the map."""
    records, metadata = write(tmp_path / "one", count=1)
    ids = np.array(ids, np.uint8).repeat(10, 0).repeat(10, 1)
    Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1)).save(records[0]["pan_seg_file_name"])
    infos = [info | {"area": int((ids == info["id"]).sum())} for info in infos]
    content = json.loads((tmp_path / "one/panoptic.json").read_text())
    content["annotations"][0]["segments_info"] = infos
    (tmp_path / "one/panoptic.json").write_text(json.dumps(content))
    register(NAME, records, metadata)
    return records


@pytest.mark.parametrize(
    "ids, infos, predicted, categories, expected",
    [
        # An IoU of exactly one half is no match.
        ([[1, 1, 1, 2]], [(1, 7, 0), (2, 9, 0)], [[3, 3, 3, 3]], {3: 1}, {7: "TP", 9: "FN"}),
        ([[1, 1, 2, 2]], [(1, 7, 0), (2, 9, 0)], [[3, 3, 3, 3]], {3: 1}, {7: "FP FN", 9: "FN"}),
        # Void does not count into the union: 1 of 2 pixels becomes 1 of 1.
        ([[1, 0]], [(1, 7, 0)], [[3, 3]], {3: 1}, {7: "TP"}),
        # More than half in void is no false positive, half is one.
        ([[0, 0, 0, 1]], [(1, 9, 0)], [[3, 3, 3, 3]], {3: 1}, {9: "FN"}),
        ([[0, 0, 1, 1]], [(1, 9, 0)], [[3, 3, 3, 3]], {3: 1}, {7: "FP", 9: "FN"}),
        # A crowd excuses segments of its class, not of others, and is never missed.
        ([[1, 1, 1, 2]], [(1, 7, 1), (2, 9, 0)], [[3, 3, 3, 3]], {3: 1}, {9: "FN"}),
        ([[1, 1, 1, 2]], [(1, 7, 1), (2, 9, 0)], [[3, 3, 3, 3]], {3: 3}, {9: "FN", 12: "FP"}),
        ([[1, 1, 1, 1]], [(1, 7, 1)], [[0, 0, 0, 0]], {}, {}),
        # Of two crowds of a class the last one of the json counts, whatever their ids.
        ([[1, 1, 2, 2]], [(1, 7, 1), (2, 7, 1)], [[3, 3, 0, 0]], {3: 1}, {7: "FP"}),
        ([[1, 1, 2, 2]], [(2, 7, 1), (1, 7, 1)], [[3, 3, 0, 0]], {3: 1}, {}),
    ],
)
def test_rules_one_by_one(tmp_path, ids, infos, predicted, categories, expected):
    infos = [dict(zip(("id", "category_id", "iscrowd"), info, strict=True)) for info in infos]
    records = one_scene(tmp_path, ids, infos)
    try:
        evaluate(records, [enlarged_output(predicted, categories)], output_folder=tmp_path)
    finally:
        unregister(NAME)
    found = {
        row["id"]: " ".join(key for key in ("TP", "FP", "FN") if row[key])
        for row in json.loads((tmp_path / "panoptic_seg.json").read_text())["rows"]
    }
    assert {category: what for category, what in found.items() if what} == expected


def test_the_ground_truth_itself_is_perfect_if_areas_are_counted(tmp_path):
    records, metadata = write(tmp_path)
    for record in records:
        for info in record["segments_info"]:
            del info["area"], info["iscrowd"]
        ids, _ = read_scene(record)
        record["segments_info"] = [s for s in record["segments_info"] if (ids == s["id"]).any()]
    del metadata["panoptic_json"]
    register(NAME, records, metadata)
    try:
        metrics = evaluate(records, [ground_truth_as_prediction(record) for record in records])
    finally:
        unregister(NAME)
    assert metrics == {name: pytest.approx(100) for name in metrics}


def test_segments_by_label_divisor(data):
    """Without segments_info a pixel is class * 1000 + number, and -1 is void."""
    outputs, coded = panoptic_outputs(data), []
    for output in outputs:
        ids, segments = output["panoptic_seg"]
        codes = torch.full(ids.shape, -1)
        for number, segment in enumerate(segments):
            codes[ids == segment["id"]] = segment["category_id"] * 1000 + number
        coded.append({"panoptic_seg": (codes, None)})
    assert evaluate(data, coded) == evaluate(data, outputs)


def test_reset_forgets_the_round_before(data):
    outputs = panoptic_outputs(data)
    evaluator = PanopticEvaluator(NAME)
    results = []
    for _ in range(2):
        evaluator.reset()
        evaluator.process(data, outputs)
        results.append(evaluator.evaluate())
    assert results[0] == results[1]


def test_class_table_is_json_and_csv(data, tmp_path):
    evaluate(data, panoptic_outputs(data), output_folder=tmp_path / "new")
    content = json.loads((tmp_path / "new/panoptic_seg.json").read_text())
    counts = plain_counts(data, panoptic_outputs(data))
    for row, category in zip(content["rows"], CATEGORIES, strict=True):
        assert (row["id"], row["class"]) == (category["id"], category["name"])
        assert [row["TP"], row["FP"], row["FN"]] == list(counts[category["id"]][1:])
    lines = (tmp_path / "new/panoptic_seg.csv").read_text().splitlines()
    assert lines[0] == "id,class,isthing,PQ,SQ,RQ,TP,FP,FN"
    assert len(lines) == len(CATEGORIES) + 1
    assert sorted(os.listdir(tmp_path / "new")) == [
        "panoptic_seg.csv", "panoptic_seg.json",
        "panoptic_seg_errors.csv", "panoptic_seg_errors.json",
    ]  # fmt: skip


def test_missing_and_repeated_images_are_errors(data):
    outputs = panoptic_outputs(data)
    with pytest.raises(ValueError, match="1 of the 12 images.*image 11 has 0 predictions"):
        evaluate(data[:-1], outputs[:-1])
    with pytest.raises(ValueError, match="image 0 has 2 predictions"):
        evaluate([*data, data[0]], [*outputs, outputs[0]])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda sample, output: sample.update(image_id="0"), "image '0' is not in the ground tru"),
        (lambda sample, output: output.clear(), "no panoptic_seg.*PANOPTIC_ON"),
        (
            lambda sample, output: output.update(panoptic_seg=(torch.ones(3, 4), [])),
            "0.png has 80 x 60 pixels, but the prediction for image 0 has 4 x 3",
        ),
        (
            lambda sample, output: output["panoptic_seg"][1].append({"id": 7, "category_id": 1}),
            r"lists the segments 7 that have no pixel",
        ),
        (
            lambda sample, output: output["panoptic_seg"][1].pop(),
            r"the map of the prediction has 1 segment ids that its segments_info lacks: \d+",
        ),
        (
            lambda sample, output: output["panoptic_seg"][1][0].update(category_id=33),
            "segment of category 33, which the data set 'test_panoptic' does not have",
        ),
    ],
)
def test_wrong_predictions_are_named(data, change, message):
    sample, output = dict(data[0]), ground_truth_as_prediction(data[0])
    change(sample, output)
    with pytest.raises(ValueError, match=message):
        compare([sample], [output])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda png: Image.fromarray(np.zeros((60, 80), np.uint8)).save(png), "0.png has"),
        (lambda png: Path(png).write_bytes(b"no image"), "0.png cannot be read"),
        (
            lambda png: Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(png),
            "0.png.*the map of the ground truth has 1 segment ids that its segments_info lacks",
        ),
    ],
)
def test_wrong_ground_truth_files_are_named(data, damage, message):
    output = ground_truth_as_prediction(data[0])
    damage(data[0]["pan_seg_file_name"])
    with pytest.raises(ValueError, match=message):
        compare(data[:1], [output])


def test_errors_in_the_background_are_raised_soon(data):
    outputs = [ground_truth_as_prediction(record) for record in data]
    Path(data[0]["pan_seg_file_name"]).write_bytes(b"no image")
    evaluator = PanopticEvaluator(NAME)
    with pytest.raises(ValueError, match="0.png cannot be read"):
        for i, (record, output) in enumerate(zip(data, outputs, strict=True)):
            assert i <= evaluator.background.waiting
            evaluator.process([record], [output])


def test_json_of_another_kind_is_an_error(data):
    path = Path(MetadataCatalog.get(NAME).panoptic_json)
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="image 0 has segments of category 99"):
        compare(data[:1], [ground_truth_as_prediction(data[0])])
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="has no list 'annotations'"):
        compare(data[:1], [ground_truth_as_prediction(data[0])])
