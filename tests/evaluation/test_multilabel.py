"""Multi-label metrics over images against plain loops."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from support.evaluation_data import (
    NAMES,
    ranking_outputs,
    register,
    run_evaluator,
    unregister,
    write,
)

from rankseg_d2.evaluation import MultiLabelEvaluator, check_evaluation

NAME, CLASSES = "test_multilabel", len(NAMES)


@pytest.fixture
def data(tmp_path):
    records, metadata = write(tmp_path / "data")
    empty = tmp_path / "data/empty.png"
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(empty)
    records.append({"file_name": "empty.jpg", "sem_seg_file_name": str(empty)})
    register(NAME, records, metadata)
    yield records
    unregister(NAME)


def present_in(record):
    values = set(np.asarray(Image.open(record["sem_seg_file_name"])).ravel().tolist())
    return values - {255}


def evaluate(records, outputs, batch=5, **options):
    evaluator = MultiLabelEvaluator(NAME, **options)
    return run_evaluator(evaluator, records, outputs, batch)["multilabel"]


def average_precision(is_relevant):
    """Of a list in rank order."""
    hits = [sum(is_relevant[: i + 1]) / (i + 1) for i, hit in enumerate(is_relevant) if hit]
    return sum(hits) / len(hits)


def test_equals_plain_loops(data):
    outputs = ranking_outputs(len(data))
    present = [present_in(record) for record in data]
    assert present[-1] == set()
    recall, precision, lrap, sizes = [], [], [], []
    for labels, output in zip(present, outputs, strict=True):
        scores, kept = output["ranking"]["scores"], set(output["ranking"]["classes"].tolist())
        precision.append(len(labels & kept) / len(kept))
        sizes.append(len(kept))
        if labels:
            recall.append(len(labels & kept) / len(labels))
            order = scores.argsort(descending=True).tolist()
            lrap.append(average_precision([category in labels for category in order]))
    metrics = evaluate(data, outputs)
    ap = {}
    for i, name in enumerate(NAMES):
        images = sorted(range(len(data)), key=lambda k: -outputs[k]["ranking"]["scores"][i].item())
        if any(i in labels for labels in present):
            ap[name] = average_precision([i in present[k] for k in images])
        else:
            assert np.isnan(metrics[f"AP-{name}"])
    expected = {"mAP": np.mean([*ap.values()]), "LRAP": np.mean(lrap)}
    expected |= {"recall@k": np.mean(recall), "precision@k": np.mean(precision)}
    expected |= {f"AP-{name}": value for name, value in ap.items()}
    expected = {name: 100 * value for name, value in expected.items()} | {"k": np.mean(sizes)}
    del metrics["AP-unicorn"], metrics["AP-snow"]
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_a_perfect_ranking_is_100(data):
    outputs = []
    for record in data[:-1]:
        scores = torch.zeros(CLASSES)
        scores[list(present_in(record))] = 1
        kept = scores.nonzero()[:, 0]
        outputs.append({"ranking": {"scores": scores, "classes": kept}})
    metrics = evaluate(data[:-1], outputs)
    for name in ("mAP", "LRAP", "recall@k", "precision@k"):
        assert metrics[name] == pytest.approx(100)


@pytest.mark.parametrize("key", ["segments_info", "annotations"])
def test_segments_and_annotations_are_ground_truth_too(data, key):
    records = data[:-1]
    outputs = ranking_outputs(len(records))
    expected = evaluate(records, outputs)
    for record in records:
        objects = [{"category_id": category} for category in sorted(present_in(record)) * 2]
        name = record["file_name"]
        record.clear()
        record.update({"file_name": name, key: objects})
    assert evaluate(records, outputs) == pytest.approx(expected, nan_ok=True)


def test_many_classes_at_once_make_no_difference(data, monkeypatch):
    outputs = ranking_outputs(len(data))
    expected = evaluate(data, outputs)
    monkeypatch.setattr("rankseg_d2.evaluation.multilabel.CLASSES_AT_ONCE", 4)
    assert evaluate(data, outputs) == pytest.approx(expected, nan_ok=True)


def test_half_precision_and_no_kept_category(data):
    outputs = ranking_outputs(len(data))
    for output in outputs:
        output["ranking"]["scores"] = output["ranking"]["scores"].half()
        output["ranking"]["classes"] = output["ranking"]["classes"][:0]
    metrics = evaluate(data, outputs)
    assert metrics["k"] == metrics["recall@k"] == 0
    assert np.isnan(metrics["precision@k"])
    assert metrics["mAP"] > 0


def test_tables_of_classes_and_ranks_are_written(data, tmp_path):
    outputs = ranking_outputs(len(data))
    metrics = evaluate(data, outputs, output_folder=str(tmp_path))
    present = [present_in(record) for record in data]
    classes = json.loads((tmp_path / "multilabel.json").read_text())
    assert classes["metrics"]["mAP"] == metrics["mAP"]
    assert [row["images"] for row in classes["rows"]] == [
        sum(i in labels for labels in present) for i in range(CLASSES)
    ]
    ranks = json.loads((tmp_path / "multilabel_ranks.json").read_text())["rows"]
    histogram = np.zeros(CLASSES)
    for labels, output in zip(present, outputs, strict=True):
        order = output["ranking"]["scores"].argsort(descending=True).tolist()
        histogram[[order.index(category) for category in labels]] += 1
    assert [row["labels"] for row in ranks] == list(histogram)
    shares = 100 * histogram.cumsum() / histogram.sum()
    assert [row["found_up_to_here"] for row in ranks] == pytest.approx(list(shares))
    assert (
        (tmp_path / "multilabel_ranks.csv").read_text().startswith("rank,labels,found_up_to_here")
    )


@pytest.mark.parametrize(
    "output, message",
    [
        ({"sem_seg": 1}, "no ranking, only sem_seg.*MODEL.RANKSEG.FLAG"),
        (
            {"ranking": {"scores": torch.zeros(9), "classes": torch.arange(2)}},
            "ranks 9 categories, but the data set has 7",
        ),
    ],
)
def test_wrong_outputs_are_named(data, output, message):
    with pytest.raises(ValueError, match=message):
        evaluate(data[:1], [output])


def test_nothing_to_evaluate_is_an_error(data):
    with pytest.raises(ValueError, match="no image"):
        evaluate([], [])


def test_things_alone_can_be_the_classes(data):
    assert MultiLabelEvaluator(NAME, task="instance").names == (
        MetadataCatalog.get(NAME).thing_classes
    )


def test_a_record_with_labels_of_two_tasks_counts_those_of_its_task(data):
    """`shapes_instance`: a label map of all classes beside annotations of the things alone."""
    metadata = MetadataCatalog.get(NAME)
    things = len(metadata.thing_classes)
    for record in data:
        record["annotations"] = [{"category_id": things - 1}]
    evaluator = MultiLabelEvaluator(NAME, task="instance")
    present = evaluator.present_categories({"file_name": data[0]["file_name"]})
    assert present.tolist() == [False] * (things - 1) + [True]


def test_a_class_beyond_the_list_is_named_before_and_at_the_evaluation(data):
    for record in data:
        record["annotations"] = [{"category_id": 10_000}]
    evaluator = MultiLabelEvaluator(NAME, task="instance")
    sample = {"file_name": data[0]["file_name"]}
    for use in (lambda: check_evaluation(evaluator), lambda: evaluator.present_categories(sample)):
        with pytest.raises(ValueError, match="have the class 10000, but 'test_multilabel' has"):
            use()


def test_an_image_that_comes_twice_is_an_error(data):
    with pytest.raises(ValueError, match="was predicted 2 times"):
        evaluate([data[0], data[0]], ranking_outputs(2))
