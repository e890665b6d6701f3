"""Semantic metrics against detectron2's evaluator where it is installed, and plain loops always."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from support.evaluation_data import (
    IGNORE,
    NAMES,
    labels_of,
    read_scene,
    register,
    registered,
    run_evaluator,
    score_maps,
    to_labels,
    unregister,
    write,
)

import rankseg_d2
from rankseg_d2.evaluation import SemanticEvaluator, check_evaluation

NAME, CLASSES = "test_semantic", len(NAMES)


@pytest.fixture
def data(tmp_path):
    yield from registered(NAME, tmp_path / "data")


def labels_only(outputs):
    return [{"sem_seg_labels": output["sem_seg"].argmax(0)} for output in outputs]


def evaluate(records, outputs, batch=5, name=NAME, **options):
    evaluator = SemanticEvaluator(name, **options)
    return run_evaluator(evaluator, records, outputs, batch)["sem_seg"]


def plain_metrics(pairs, classes, ignore):
    """By masks of each class, over the pixels of all pairs (ground truth, prediction)."""
    labels = np.concatenate([labels.ravel() for labels, _ in pairs])
    predicted = np.concatenate([predicted.ravel() for _, predicted in pairs])
    predicted, labels = predicted[labels != ignore], labels[labels != ignore]
    ious, shares, accuracies, seen = [], [], [], []
    for c in range(classes):
        true, found = labels == c, predicted == c
        if (true | found).any():
            seen.append((true & found).sum() / (true | found).sum())
        if true.any():
            ious.append((true & found).sum() / (true | found).sum())
            shares.append(true.mean())
            accuracies.append((true & found).sum() / true.sum())
    return {
        "mIoU": 100 * np.mean(ious),
        "mIoU_nanmean": 100 * np.mean(seen),
        "fwIoU": 100 * np.dot(ious, shares),
        "mACC": 100 * np.mean(accuracies),
        "pACC": 100 * np.mean(labels == predicted),
    }


def main(metrics):
    return {name: value for name, value in metrics.items() if "-" not in name}


def test_equals_plain_loops(data):
    outputs = score_maps(data)
    pairs = [
        (labels_of(record), output["sem_seg"].argmax(0).numpy())
        for record, output in zip(data, outputs, strict=True)
    ]
    metrics = evaluate(data, outputs)
    assert main(metrics) == pytest.approx(plain_metrics(pairs, CLASSES, IGNORE), rel=1e-12)
    assert metrics["mIoU_nanmean"] < metrics["mIoU"]  # unicorns count in one of them
    assert np.isnan(metrics["IoU-unicorn"])
    assert evaluate(data, outputs, batch=1) == pytest.approx(metrics, nan_ok=True)


def test_equals_detectron2(data):
    if rankseg_d2.engine_name() != "detectron2":
        pytest.skip("compares with the real detectron2, which is not installed")
    from detectron2.evaluation import SemSegEvaluator

    outputs = score_maps(data)
    theirs = SemSegEvaluator(NAME, distributed=False)
    theirs.reset()
    theirs.process(data, outputs)
    expected = theirs.evaluate()["sem_seg"]
    ours = evaluate(data, outputs)
    del ours["mIoU_nanmean"]  # they have one convention
    assert ours == pytest.approx({name: expected[name] for name in ours}, rel=1e-12, nan_ok=True)


def test_labels_scores_and_ranked_scores_say_the_same(data):
    outputs = score_maps(data)
    order = torch.tensor([3, 1, 6, 5, 0, 2, 4])
    ranked = [
        {"sem_seg_scores": output["sem_seg"][order], "sem_seg_classes": order} for output in outputs
    ]
    expected = evaluate(data, outputs)
    for same in (labels_only(outputs), ranked):
        assert evaluate(data, same) == pytest.approx(expected, nan_ok=True)


def test_no_category_is_a_wrong_pixel(data):
    maps = [labels_of(record) for record in data]
    perfect = [{"sem_seg_labels": torch.tensor(labels)} for labels in maps]
    for output in perfect:
        output["sem_seg_labels"][output["sem_seg_labels"] == IGNORE] = 2
    assert evaluate(data, perfect)["mIoU"] == 100
    for output in perfect:
        output["sem_seg_labels"][20:] = CLASSES
    pixels = np.concatenate([labels.ravel() for labels in maps])
    kept = np.concatenate([labels[:20].ravel() for labels in maps])
    share = 100 * (kept != IGNORE).sum() / (pixels != IGNORE).sum()
    metrics = evaluate(data, perfect)
    assert metrics["pACC"] == pytest.approx(share)
    assert metrics["mIoU"] == pytest.approx(metrics["mACC"])  # no class has a false positive


@pytest.mark.parametrize("ignore", [65535, 1284])
def test_many_classes_and_16_bit_labels(tmp_path, ignore):
    rng = np.random.default_rng(0)
    records, outputs, pairs = [], [], []
    for i in range(3):
        labels = rng.integers(0, 1284, (8, 10)).repeat(6, 0).repeat(6, 1)
        labels[:5] = ignore
        path = tmp_path / f"{i}.png"
        Image.fromarray(labels.astype(np.uint16)).save(path)
        predicted = np.where(rng.random(labels.shape) < 0.3, 700, labels % 1284)
        records.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(path)})
        outputs.append({"sem_seg_labels": torch.from_numpy(predicted)})
        pairs.append((labels, predicted))
    names = [f"class {i}" for i in range(1284)]
    register("test_many", records, {"stuff_classes": names, "ignore_label": ignore})
    try:
        metrics = evaluate(records, outputs, name="test_many")
    finally:
        unregister("test_many")
    assert main(metrics) == pytest.approx(plain_metrics(pairs, 1284, ignore))


def test_ground_truth_is_found_by_image_if_the_sample_has_none(data):
    outputs = score_maps(data)
    expected = evaluate(data, outputs)
    bare = [{"file_name": record["file_name"]} for record in data]
    assert evaluate(bare, outputs) == pytest.approx(expected, nan_ok=True)
    # detectron2's mapper removes sem_seg_file_name and leaves the panoptic ground truth.
    mapped = [record | {"pan_seg_file_name": "not to be read"} for record in data]
    for sample in mapped:
        del sample["sem_seg_file_name"]
    assert evaluate(mapped, outputs) == pytest.approx(expected, nan_ok=True)


def test_panoptic_segments_are_painted_if_there_is_no_label_map(tmp_path):
    records, metadata = write(tmp_path / "data")
    expected = [to_labels(*pair) for pair in map(read_scene, records)]
    for record in records:
        del record["sem_seg_file_name"]
    register(NAME, records, metadata)
    outputs = [{"sem_seg_labels": torch.from_numpy(labels).long() % 255} for labels in expected]
    try:
        metrics = evaluate(records, outputs)
    finally:
        unregister(NAME)
    assert metrics["pACC"] == metrics["mIoU"] == 100


def test_repeated_class_names_keep_their_ious(tmp_path):
    records, metadata = write(tmp_path / "data")
    metadata["stuff_classes"] = ["thing", "box", "box", "cat", "a", "b", "c"]
    register(NAME, records, metadata)
    try:
        metrics = evaluate(records, score_maps(records))
    finally:
        unregister(NAME)
    assert {"IoU-thing", "IoU-box (1)", "IoU-box (2)", "ACC-box (2)"} < metrics.keys()


def test_tables_and_confusion_matrix_are_written(data, tmp_path):
    outputs = score_maps(data)
    metrics = evaluate(data, outputs, output_folder=str(tmp_path / "out"))
    content = json.loads((tmp_path / "out/sem_seg.json").read_text())
    assert content["metrics"] == main(metrics)
    with open(tmp_path / "out/sem_seg.csv") as file:
        rows = list(csv.DictReader(file))
    confusion = np.load(tmp_path / "out/sem_seg_confusion.npz")
    matrix = np.zeros((len(NAMES), len(NAMES) + 1), np.int64)
    matrix[confusion["true"], confusion["predicted"]] = confusion["pixels"]
    labels = np.concatenate([labels_of(record).ravel() for record in data])
    for i, (name, row, cells) in enumerate(zip(NAMES, content["rows"], rows, strict=True)):
        assert row["class"] == cells["class"] == name
        assert row["true_pixels"] == matrix[i].sum() == (labels == i).sum()
        assert row["predicted_pixels"] == matrix[:, i].sum() == int(cells["predicted_pixels"])
        if name in ("unicorn", "snow"):
            assert row["IoU"] is None
            assert cells["IoU"] == ""
        else:
            assert row["IoU"] == metrics[f"IoU-{name}"] == float(cells["IoU"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {f"sem_seg{of}.{kind}" for of in ("", "_errors") for kind in ("json", "csv")}
    assert names == tables | {"sem_seg_confusion.npz"}


def test_predictions_are_written_when_asked(data, tmp_path):
    from pycocotools import mask as mask_util

    outputs = score_maps(data)
    evaluate(data, outputs, output_folder=str(tmp_path), save_predictions=True)
    rows = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    own = MetadataCatalog.get(NAME).stuff_dataset_id_to_contiguous_id
    for record, output in zip(data, outputs, strict=True):
        labels = np.full((record["height"], record["width"]), -1)
        for row in rows:
            if row["file_name"] == record["file_name"]:
                labels[mask_util.decode(row["segmentation"]) == 1] = own[row["category_id"]]
        assert (labels == output["sem_seg"].argmax(0).numpy()).all()


def test_nothing_but_ignored_pixels_gives_nan(tmp_path):
    Image.fromarray(np.full((4, 5), 255, np.uint8)).save(tmp_path / "ignored.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "ignored.png")}
    register(NAME, [record], {"stuff_classes": ["a", "b"], "ignore_label": 255})
    try:
        metrics = evaluate([record], [{"sem_seg_labels": torch.zeros(4, 5).long()}])
    finally:
        unregister(NAME)
    assert all(np.isnan(value) for value in metrics.values())


@pytest.mark.parametrize(
    "sample, output, message",
    [
        ({}, {"sem_seg_labels": torch.zeros(3, 4)}, "0.png has 80 x 60 pixels.*0.jpg' has 4 x 3"),
        ({}, {"instances": 1}, "no sem_seg_labels or .*only instances. Set.*SEMANTIC_ON"),
        ({}, {"sem_seg_labels": torch.full((60, 80), 9)}, "labels from 9 to 9.*7 classes, 0 to 6"),
        (
            {"file_name": "?"},
            {"sem_seg_labels": torch.zeros(3, 4)},
            "image '\\?' is not in the ground",
        ),
        ({"file_name": None}, {"sem_seg_labels": torch.zeros(3, 4)}, "must have file_name, im"),
    ],
)
def test_wrong_input_is_named(data, sample, output, message):
    sample = {"file_name": data[0]["file_name"]} | sample
    with pytest.raises(ValueError, match=message):
        run_evaluator(SemanticEvaluator(NAME), [sample], [output])


@pytest.mark.parametrize(
    "ground_truth, message",
    [
        ({}, "no ground truth for 'a.jpg'.*sem_seg_file_name"),
        ({"segments_info": []}, "'a.jpg' has no pan_seg_file_name. Without sem_seg_file_name"),
        ({"pan_seg_file_name": "a.png"}, "'a.jpg' has no segments_info. Without sem_seg_file_name"),
    ],
)
def test_a_record_without_ground_truth_is_an_error(ground_truth, message):
    record = {"file_name": "a.jpg"} | ground_truth
    register(NAME, [record], {"stuff_classes": ["a"], "ignore_label": 255})
    try:
        evaluator = SemanticEvaluator(NAME)
        with pytest.raises(ValueError, match=message):
            output = {"sem_seg_labels": torch.zeros(3, 4)}
            run_evaluator(evaluator, [{"file_name": "a.jpg"}], [output])
    finally:
        unregister(NAME)


def test_an_ignore_label_that_is_a_class_is_an_error():
    names = [f"class {i}" for i in range(300)]
    register(NAME, [], {"stuff_classes": names, "ignore_label": 255})
    try:
        with pytest.raises(ValueError, match="ignore_label of 'test_semantic' is 255.*300 classes"):
            SemanticEvaluator(NAME)
    finally:
        unregister(NAME)


def test_an_image_that_comes_twice_is_an_error(data, tmp_path):
    outputs = labels_only(score_maps(data))
    with pytest.raises(ValueError, match=f"Image '.*' of '{NAME}' was predicted 2 times"):
        evaluate([*data, data[1]], [*outputs, outputs[1]])


def test_missing_label_files_are_named_before_the_evaluation(data):
    check_evaluation(SemanticEvaluator(NAME))
    Path(data[2]["sem_seg_file_name"]).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of {len(data)} label files of '{NAME}'"):
        check_evaluation(SemanticEvaluator(NAME))
