"""Tables as files and as text."""

import csv
import json
import os

import pytest

from rankseg_d2.tables import text_table, unique_names, write_tables

ROWS = [{"class": 'a, "b"', "AP": 12.5}, {"class": "é", "AP": float("nan")}]


def test_json_and_csv_say_the_same(tmp_path):
    write_tables(str(tmp_path / "new/folder"), "t", {"mAP": float("nan"), "n": 2}, ROWS)
    content = json.loads((tmp_path / "new/folder/t.json").read_text())
    assert content["metrics"] == {"mAP": None, "n": 2}
    assert content["rows"] == [{"class": 'a, "b"', "AP": 12.5}, {"class": "é", "AP": None}]
    with open(tmp_path / "new/folder/t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"class": 'a, "b"', "AP": "12.5"}, {"class": "é", "AP": ""}]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_tables(str(tmp_path), "t", {"x": 1}, ROWS)
    before = sorted(os.listdir(tmp_path))

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_tables(str(tmp_path), "t", {"x": 2}, ROWS)
    assert json.loads((tmp_path / "t.json").read_text())["metrics"] == {"x": 1}
    assert sorted(os.listdir(tmp_path)) == before


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tables(None, "t", {}, ROWS)
    assert not os.listdir(tmp_path)


def test_text_is_aligned():
    text = text_table([{"": "All", "PQ": 1.234, "n": 7}, {"": "Things", "PQ": 100.0, "n": 12}])
    assert text == "            PQ   n\nAll       1.23   7\nThings  100.00  12"


def test_repeated_names_get_their_id():
    assert unique_names(["a", "b", "a"]) == ["a (0)", "b", "a (2)"]
