"""per_class.csv, confusion.png and val_*.jpg of OUTPUT_DIR, of what the evaluators have written."""

import csv
import json
import logging

import numpy as np
import pytest
from PIL import Image
from support.evaluation_data import confusion_of
from support.toy import toy_config

from rankseg_d2.drawing import heat_map
from rankseg_d2.engine import result_files
from rankseg_d2.engine.result_files import (
    class_rows,
    confused_classes,
    draw_confusion,
    write_results,
)
from rankseg_d2.files import write_image

TABLES = {
    "sem_seg": [{"id": 0, "class": "sky", "IoU": 90.0}, {"id": 1, "class": "a, b", "IoU": None}],
    "panoptic_seg": [{"id": 7, "class": "a, b", "isthing": True, "PQ": 12.5}],
    "multilabel": [{"id": 0, "class": "sky", "AP": 1.0}, {"id": 1, "class": "a, b", "AP": 2.0}],
}
MATRIX = np.array([[6, 2, 0], [0, 5, 5]])  # the last column: no category


@pytest.fixture
def evaluate(tmp_path):
    """A function that writes what the evaluators of a data set write; `tasks` have tables."""

    def write(name, tasks=tuple(TABLES)):
        folder = tmp_path / "inference" / name
        folder.mkdir(parents=True)
        for task in tasks:
            (folder / f"{task}.json").write_text(json.dumps({"rows": TABLES[task]}))
        confused = confusion_of(MATRIX)
        confused.save(folder / "sem_seg_confusion.npz", ["sky", "a, b"])
        write_image(folder / "sheet.png", np.full((30, 40, 3), 77, np.uint8))
        return dict.fromkeys(tasks, {})

    return write


def config(folder, *names):
    return toy_config(folder, "DATASETS.TEST", names)


def read_rows(folder):
    with open(folder / "per_class.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_class_has_a_row_with_the_metrics_of_all_evaluators(tmp_path, evaluate):
    write_results(config(tmp_path, "one"), evaluate("one"))
    assert read_rows(tmp_path) == [
        {"dataset": "one", "class": "sky", "sem_seg/IoU": "90.0", "multilabel/AP": "1.0",
         "panoptic_seg/PQ": ""},
        {"dataset": "one", "class": "a, b", "sem_seg/IoU": "", "multilabel/AP": "2.0",
         "panoptic_seg/PQ": "12.5"},
    ]  # fmt: skip


def test_several_data_sets_have_rows_and_pictures_of_their_own(tmp_path, evaluate):
    results = {name: evaluate(name) for name in ("one", "a/two")}
    write_results(config(tmp_path, "one", "a/two"), results)
    assert [row["dataset"] for row in read_rows(tmp_path)] == ["one", "one", "a/two", "a/two"]
    pictures = {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".jpg")}
    assert pictures == {"confusion.png", "confusion_a_two.png", "val_one.jpg", "val_a_two.jpg"}
    assert abs(np.asarray(Image.open(tmp_path / "val_one.jpg")).astype(int) - 77).max() <= 2


def test_what_an_earlier_evaluation_left_is_not_shown(tmp_path, evaluate):
    evaluate("one")
    assert class_rows(tmp_path / "inference" / "one", {"multilabel": {}}) == [
        {"class": "sky", "multilabel/AP": 1.0}, {"class": "a, b", "multilabel/AP": 2.0}
    ]  # fmt: skip
    write_results(config(tmp_path, "one"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["inference"]


def test_damaged_tables_are_a_warning(tmp_path, evaluate, caplog, monkeypatch):
    results = evaluate("one")
    (tmp_path / "inference" / "one" / "sem_seg.json").write_text("{")
    (tmp_path / "inference" / "one" / "sheet.png").write_bytes(b"no png")
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    write_results(config(tmp_path, "one"), results)
    for name in ("per_class.csv", "val_one.jpg"):
        line = f"{name} cannot be made"
        assert len({id(record) for record in caplog.records if line in record.message}) == 1
    assert (tmp_path / "confusion.png").is_file()


def test_other_processes_write_nothing(tmp_path, evaluate, monkeypatch):
    monkeypatch.setattr(result_files.comm, "is_main_process", lambda: False)
    write_results(config(tmp_path, "one"), evaluate("one"))
    assert [path.name for path in tmp_path.iterdir()] == ["inference"]


# --- confusion ------------------------------------------------------------------------------------


def test_a_row_of_the_confusion_is_the_shares_of_a_class():
    names = ["sky", "b", "no category"]
    expected = heat_map(np.array([[0.75, 0.25, 0], [0, 0.5, 0.5]]), names, "t")
    picture = draw_confusion(confusion_of(MATRIX), ["sky", "b"], "t")
    assert np.array_equal(picture, expected)
    known = MATRIX * [1, 1, 0]
    expected = heat_map(np.array([[0.75, 0.25], [0, 1]]), ["sky", "b"])
    assert np.array_equal(draw_confusion(confusion_of(known), ["sky", "b"]), expected)


def confusion(count, pairs):
    matrix = np.zeros((count, count + 1), int)
    np.fill_diagonal(matrix, 100)
    for a, b, pixels in pairs:
        matrix[a, b] += pixels
    return matrix


def test_the_most_confused_classes_are_chosen_whatever_their_size():
    matrix = confusion(9, [(2, 5, 900), (7, 3, 50), (1, 9, 40)])  # 1 for no category
    matrix[8] *= 10_000
    matrix[8, 0] = 20_000  # 2 % of a large class
    assert confused_classes(confusion_of(matrix), 2) == [2, 5]
    assert confused_classes(confusion_of(matrix), 4) == [2, 3, 5, 7]
    assert confused_classes(confusion_of(matrix), 5) == [1, 2, 3, 5, 7]
    assert confused_classes(confusion_of(matrix), 50) == list(range(9))


def test_of_many_classes_the_others_share_a_column(monkeypatch):
    monkeypatch.setattr(result_files, "MOST_CLASSES", 2)
    monkeypatch.setattr(result_files, "confused_classes", lambda matrix: [2, 5])
    shown = []
    monkeypatch.setattr(result_files, "heat_map", lambda *args: shown.append(args))
    matrix = confusion(7, [(2, 5, 60), (2, 0, 40), (5, 7, 100)])
    draw_confusion(confusion_of(matrix), list("abcdefg"), "t")
    (values, names, title), = shown
    assert names == ["c", "f", "all other classes", "no category"]
    assert values.tolist() == [[0.5, 0.3, 0.2, 0], [0, 0.5, 0, 0.5]]
    assert values.sum(1).tolist() == [1, 1]
    assert "2 most confused classes of 7" in title


def test_classes_without_ground_truth_are_drawn():
    matrix = np.zeros((40, 41), int)
    assert draw_confusion(confusion_of(matrix), [f"c{i}" for i in range(40)]).ndim == 3
    matrix[3, 4] = 1
    assert {3, 4} <= set(confused_classes(confusion_of(matrix)))

