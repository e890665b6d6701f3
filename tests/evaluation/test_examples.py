"""The worst and the best images are kept, with the maps that they were judged by."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluation_data import CLASSES, IGNORE, NAMES, run_evaluator, unregister
from support.runs import predictions, write_scenes

from rankseg_d2.evaluation.examples import SIDE, Examples, image_score, shrunk

NAME = "test_examples"


@pytest.fixture
def records(tmp_path):
    yield write_scenes(NAME, tmp_path / "data")
    unregister(NAME)


def run(records, outputs, folder, count=3, batch=5):
    run_evaluator(Examples(NAME, str(folder), count), records, outputs, batch)
    return json.loads((folder / "examples.json").read_text())


def plain_score(true, predicted):
    """The mean IoU over the classes in the image, by masks."""
    known = true != IGNORE
    ious = []
    for label in np.unique(true[known]):
        mask, other = known & (true == label), known & (predicted == label)
        ious.append((mask & other).sum() / (mask | other).sum())
    return 100 * np.mean(ious)


def scores_of(records, outputs):
    """{file: score} of all images, by their panoptic labels."""
    scores = {}
    for record, output in zip(records, outputs, strict=True):
        ids, segments = output["panoptic_seg"]
        labels = np.full(ids.shape, CLASSES)
        for segment in segments:
            labels[ids.numpy() == segment["id"]] = segment["category_id"]
        true = np.asarray(Image.open(record["sem_seg_file_name"]))
        scores[record["file_name"]] = plain_score(true, labels)
    return scores


@pytest.mark.parametrize("batch", [1, 5])
def test_the_worst_and_the_best_are_those_of_all_images(records, tmp_path, batch):
    outputs = predictions(records)
    scores = scores_of(records, outputs)
    order = sorted(scores, key=scores.get)
    content = run(records, outputs, tmp_path / "out", batch=batch)
    for kind, expected in (("worst", order[:3]), ("best", order[:-4:-1])):
        rows = [row for row in content["images"] if row["kind"] == kind]
        assert [row["key"] for row in rows] == expected
        assert [row["score"] for row in rows] == pytest.approx([scores[key] for key in expected])


def test_maps_and_pictures_are_those_of_the_image(records, tmp_path):
    outputs = [{"sem_seg_labels": output["sem_seg_labels"]} for output in predictions(records)]
    content = run(records, outputs, tmp_path / "out")
    assert content["classes"] == NAMES
    by_key = {record["file_name"]: number for number, record in enumerate(records)}
    for row in content["images"]:
        number = by_key[row["key"]]
        path = str(tmp_path / "out/examples" / row["file"])
        true = np.asarray(Image.open(records[number]["sem_seg_file_name"]))
        stored = np.asarray(Image.open(f"{path}_true.png"))
        assert (stored == np.where(true == IGNORE, CLASSES, true)).all()
        predicted = outputs[number]["sem_seg_labels"].numpy()
        assert (np.asarray(Image.open(f"{path}_predicted.png")) == predicted).all()
        image = np.asarray(Image.open(row["key"]).convert("RGB")).astype(int)
        assert np.abs(np.asarray(Image.open(f"{path}.jpg")) - image).mean() < 6
        assert (row["ranked"], row["missed"]) == ([], [])


def test_the_ranked_list_says_what_was_kept_and_missed(records, tmp_path):
    outputs = predictions(records)
    by_key = {record["file_name"]: number for number, record in enumerate(records)}
    for row in run(records, outputs, tmp_path / "out")["images"]:
        record, output = records[by_key[row["key"]]], outputs[by_key[row["key"]]]
        kept = output["ranking"]["classes"].tolist()
        assert [number for number, _ in row["ranked"]] == kept
        chances = output["ranking"]["scores"].sigmoid()[kept].tolist()
        assert [chance for _, chance in row["ranked"]] == pytest.approx(chances, abs=1e-5)
        present = set(np.unique(np.asarray(Image.open(record["sem_seg_file_name"])))) - {IGNORE}
        assert row["missed"] == sorted(present - set(kept))


def test_an_image_is_shown_once_and_older_files_are_removed(records, tmp_path):
    content = run(records, predictions(records), tmp_path / "out", count=9)
    keys = [row["key"] for row in content["images"]]
    assert len(keys) == len(set(keys)) == len(records)
    content = run(records[:4], predictions(records)[:4], tmp_path / "out", count=2)
    names = {path.name for path in (tmp_path / "out/examples").iterdir()}
    assert names == {f"{row['file']}{end}" for row in content["images"]
                     for end in (".jpg", "_true.png", "_predicted.png")}  # fmt: skip


def test_an_image_without_labels_is_left_out():
    assert np.isnan(image_score(np.full((2, 2), 3), np.zeros((2, 2), int), 3))
    assert image_score(np.array([[0, 0, 3, 1]]), np.array([[0, 1, 0, 1]]), 3) == 50


def test_large_images_are_stored_small():
    assert shrunk(np.zeros((2 * SIDE, 30, 3), np.uint8)).shape == (SIDE, 15, 3)
    assert shrunk(np.zeros((3 * SIDE, 1, 3), np.uint8)).shape == (SIDE, 1, 3)
    assert shrunk(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7, 3)


def test_an_error_is_one_warning_and_the_evaluation_goes_on(records, tmp_path, caplog):
    for record in records:
        record["file_name"] = str(tmp_path / "missing.jpg")
    outputs = [{"sem_seg_labels": torch.zeros(r["height"], r["width"]).long()} for r in records]
    with caplog.at_level(logging.WARNING):
        run_evaluator(Examples(NAME, str(tmp_path / "out"), 2), records, outputs)
    assert len(caplog.records) == 1
    assert "examples cannot be made" in caplog.text
    assert not (tmp_path / "out/examples.json").exists()
