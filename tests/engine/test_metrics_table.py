"""metrics.csv has what metrics.json has, after kills and resumes too; the curves are of it."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image
from support.toy import toy_config, train

from rankseg_d2.drawing.colors import LINES
from rankseg_d2.engine import metrics_table
from rankseg_d2.engine.metrics_table import MetricsTable, draw_curves


def write_lines(folder, *rows):
    with open(folder / "metrics.json", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_csv(folder):
    """{iteration: {name: value}} without empty cells, by the csv module alone."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    iterations = [int(row["iteration"]) for row in rows]
    assert iterations == sorted(set(iterations))
    return {
        int(row["iteration"]): {name: float(text) for name, text in row.items() if text != ""}
        for row in rows
    }


def read_json_lines(folder):
    """The same of metrics.json; later lines of an iteration win."""
    rows = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        row = json.loads(line)
        known = {name: value for name, value in row.items() if not math.isnan(value)}
        rows.setdefault(row["iteration"], {}).update(known)
    return rows


def row(iteration, **values):
    return {"iteration": iteration, "total_loss": iteration / 7} | values


def test_every_number_of_the_json_is_in_the_csv(tmp_path):
    table = MetricsTable(tmp_path)
    write_lines(tmp_path, row(19, lr=1e-5), row(39, lr=0.1))
    assert table.update() == {"iteration", "total_loss", "lr"}
    assert read_csv(tmp_path) == read_json_lines(tmp_path)
    # An evaluation brings columns, and comes after the losses of a later iteration.
    write_lines(tmp_path, row(79), {"iteration": 59, "toy/error": 3.5, "toy/b": float("nan")})
    table.update()
    write_lines(tmp_path, row(99, lr=0.25), row(119, lr=0.2))
    table.update()
    assert read_csv(tmp_path) == read_json_lines(tmp_path)
    head = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert head == "iteration,total_loss,lr,toy/b,toy/error"
    assert table.update() == set()


def test_without_new_columns_rows_are_added_at_the_end(tmp_path, monkeypatch):
    table = MetricsTable(tmp_path)
    write_lines(tmp_path, row(1))
    table.update()
    monkeypatch.setattr(metrics_table, "write_bytes", None)  # it would write all anew
    write_lines(tmp_path, row(2), row(3))
    table.update()
    assert read_csv(tmp_path) == read_json_lines(tmp_path)


def test_a_line_that_is_not_whole_is_left_for_later(tmp_path):
    table = MetricsTable(tmp_path)
    text = json.dumps(row(5, lr=2.0))
    (tmp_path / "metrics.json").write_text(text[:9])
    table.update()
    assert table.rows == {}
    (tmp_path / "metrics.json").write_text(text + "\n")
    table.update()
    assert table.rows == {5: row(5, lr=2.0)}


def test_half_a_line_of_a_killed_run_spoils_no_other(tmp_path):
    write_lines(tmp_path, row(5))
    with open(tmp_path / "metrics.json", "a") as file:
        file.write('{"iteration": 9, "total')
    write_lines(tmp_path, row(9, **{"a/IoU-{x": 1.0}), row(13, **{'a/IoU-{"': 1.0}))
    (tmp_path / "metrics.json").open("a").write("nonsense\n[1]\n{}\n")
    table = MetricsTable(tmp_path, 100)
    assert sorted(table.rows) == [5, 9, 13]
    assert table.rows[9]["total_loss"] == 9 / 7


def test_rows_that_a_resumed_run_makes_anew_are_dropped(tmp_path):
    write_lines(tmp_path, row(1, lr=1.0), row(3, lr=1.0), row(5, lr=1.0))
    table = MetricsTable(tmp_path, start_iter=3)
    assert list(table.rows) == [1, 3]
    write_lines(tmp_path, row(3), row(4))
    table.update()
    assert read_csv(tmp_path) == {1: row(1, lr=1.0), 3: row(3, lr=1.0), 4: row(4)}
    assert MetricsTable(tmp_path).rows == {}  # a run from the beginning in the same folder


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_writes_both_alike(tmp_path, resume):
    if resume:
        train(toy_config(tmp_path, "SOLVER.MAX_ITER", 23))
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", 45), resume=resume)
    found = read_csv(tmp_path)
    assert found == read_json_lines(tmp_path)
    assert {19, 39, 44, 45} <= found.keys() and "toy/error" in found[45]
    assert Image.open(tmp_path / "curves.png").size[0] == metrics_table._SIZE[0]


def has_color(picture, number):
    return (picture == LINES[number]).all(-1).any()


def test_curves_are_of_losses_and_main_results():
    rows = {i: {"total_loss": 5.0 - i, "loss_ce": 1.0, "loss_ce_0": 2.0, "lr": 0.1,
                "ranking/kept_objects": 0.5} for i in range(4)}  # fmt: skip
    losses = draw_curves(rows)
    assert losses.shape[:2] == metrics_table._SIZE[::-1]  # no evaluation, no chart of it
    assert has_color(losses, 1) and not has_color(losses, 2)  # total and class
    rows[3] |= {"sem_seg/mIoU": 40.0, "sem_seg/IoU-a-b": 3.0, "sem_seg/pACC": 50.0}
    both = draw_curves(rows)
    assert len(both) == 2 * len(losses) and np.array_equal(both[: len(losses)], losses)
    rows[2] |= {"sem_seg/pACC": 45.0}  # not a main one
    assert np.array_equal(draw_curves(rows), both)
    assert draw_curves({}).shape == losses.shape
    result = draw_curves({3: {"sem_seg/mIoU": 40.0}} | {0: rows[0]})[len(losses) :]
    columns = np.nonzero((result == LINES[0]).all(-1))[1]
    assert columns.min() > 0.9 * result.shape[1]  # the dot is at the last iteration of the losses


def test_curves_are_drawn_after_evaluations_and_then_ever_more_seldom(tmp_path, monkeypatch):
    drawn = []

    def draw(rows, title):
        drawn.append(len(rows))
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr("rankseg_d2.engine.hooks.draw_curves", draw)
    monkeypatch.setattr("rankseg_d2.engine.hooks.WRITE_PERIOD", 1)
    monkeypatch.setattr("detectron2.engine.hooks.PeriodicWriter.after_step",
                        lambda self: [writer.write() for writer in self._writers])  # fmt: skip
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", 60, "TEST.EVAL_PERIOD", 50))
    assert drawn[:3] == [1, 2, 3] and 50 in drawn and drawn[-1] == 61
    assert len(drawn) < 35
