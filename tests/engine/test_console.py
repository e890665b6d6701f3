"""What a run shows on the console, and what only log.txt has."""

import json
import logging
import math
import os
import subprocess
import sys

import pytest
import torch
from detectron2.utils.events import EventStorage
from support.paths import ROOT
from support.small import MASK2FORMER, RANKSEG, make_model

from rankseg_d2.config import get_config
from rankseg_d2.engine import console, log_results
from rankseg_d2.engine.console import WIDTH, ProgressLine, log_config, log_model

TOY = "toy/semantic/r18"
CPU = torch.device("cpu")


@pytest.fixture
def lines(caplog):
    """The lines that a function logs."""

    def run(function, *args):
        caplog.clear()
        with caplog.at_level(logging.INFO, console.logger.name):
            function(*args)
        return "\n".join(record.getMessage() for record in caplog.records).splitlines()

    return run


@pytest.mark.parametrize("name, level, message, is_shown", [
    ("detectron2.engine.defaults", logging.INFO, "Model:\nResNet(\n)", False),
    ("rankseg_d2._detectron2.engine.defaults", logging.INFO, "Model:\nResNet(\n)", False),
    ("detectron2", logging.INFO, "Running with full config:\nSEED: 1", False),
    ("detectron2", logging.INFO, "Command line arguments: Namespace()", False),
    ("detectron2.evaluation.testing", logging.INFO, "copypaste: AP,AP50", False),
    ("detectron2.engine.hooks", logging.INFO, "Total training time: 0:01:00", True),
    ("detectron2.engine.hooks", logging.WARNING, "two\nlines", True),
    ("rankseg_d2.evaluation.semantic", logging.INFO, "semantic\nmIoU", True),
])  # fmt: skip
def test_the_console_leaves_out_what_fills_pages(name, level, message, is_shown):
    record = logging.LogRecord(name, level, "", 0, message, (), None)
    assert console._is_for_console(record) is is_shown


def test_a_shipped_config_shows_only_what_the_command_line_changes(lines):
    opts = ["MODEL.DEVICE", "cpu"]
    cfg = get_config(TOY, [*opts, "SEED", "7"])
    shown = lines(log_config, cfg, TOY, ["SEED", "7"])
    assert [line for line in shown if "DEVICE" not in line] == [f"config {TOY}:", "  SEED: 1 -> 7"]


def test_a_config_file_shows_what_it_changes_of_its_base(lines, tmp_path):
    path = tmp_path / "mine.yaml"
    keys = "SOLVER: {BASE_LR: 0.5, MAX_ITER: 77}\nMODEL: {DEVICE: cpu}"
    path.write_text(f"_BASE_: {TOY}\n{keys}\n")
    base = get_config(TOY, ["MODEL.DEVICE", "cpu"])
    head, *changes = lines(log_config, get_config(path), str(path), [])
    assert head == f"config {path}, which changes of its base:"
    assert f"  SOLVER.BASE_LR: {base.SOLVER.BASE_LR} -> 0.5" in changes
    assert f"  SOLVER.MAX_ITER: {base.SOLVER.MAX_ITER} -> 77" in changes
    assert len(changes) <= 3  # MODEL.DEVICE too


def test_many_changes_are_counted(lines, tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(get_config(TOY).dump())
    changes = lines(log_config, get_config(path), str(path), [])
    assert len(changes) == 2 + console._MOST_KEYS
    assert changes[-1].strip().startswith("and ") and "log.txt" in changes[-1]


def test_the_model_takes_five_lines(lines):
    model = make_model(MASK2FORMER, RANKSEG)
    model.backbone.requires_grad_(False)
    head, *parts = lines(log_model, model)
    assert "RankSegMaskFormer" in head and "frozen" in head
    assert [part.split(":")[0].strip() for part in parts] == [
        "backbone", "pixel_decoder", "predictor", "ml_head"
    ]  # fmt: skip
    counts = {name: console._count(module.parameters()) for name, module in model.named_modules()}
    assert counts["ml_head"] in parts[3] and counts[""] in head


def test_one_line_adds_up_the_losses_of_all_layers(lines, monkeypatch):
    monkeypatch.setattr(console, "highest_memory", {CPU: 2.345 * 2**30}.__getitem__)
    with EventStorage() as storage:
        storage.iter = 159_998
        losses = {"ce": 2.0, "mask": 1.5, "dice": 1.25}
        for layer in ["", *(f"_{i}" for i in range(9))]:
            for name, value in losses.items():
                storage.put_scalar(f"loss_{name}{layer}", value)
        storage.put_scalars(loss_ml=0.123456, total_loss=47.623456)
        storage.put_scalars(lr=1.234567e-5, time=12.3456, smoothing_hint=False)
        line, = lines(ProgressLine(160_000, CPU).write)
        assert storage.latest()["eta_seconds"][0] == pytest.approx(12.3456)
    losses = "loss 47.62 (class 20, mask 27.5, ranking 0.123)"
    assert line == f"159999/160000  {losses}  lr 1.2e-05  12.3 s/it  left 0:00:12  2.3 GiB"
    assert len("00:00:00 ") + len(line) + len("10") <= WIDTH


def test_losses_of_other_models_keep_their_names(lines):
    with EventStorage() as storage:
        storage.put_scalars(loss_box_reg=1.0, loss_sem_seg_0=2.0, total_loss=3.0)
        line, = lines(ProgressLine(10, CPU).write)
    assert "loss 3 (pixels 2, box_reg 1)" in line


def test_after_the_last_iteration_there_is_no_line(lines):
    with EventStorage(10) as storage:
        storage.put_scalar("total_loss", 1.0)
        assert lines(ProgressLine(10, CPU).write) == []


@pytest.fixture
def evaluated(tmp_path):
    """(cfg, results) with a table of classes."""
    cfg = get_config(TOY, ["OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", "('console_val',)"])
    folder = tmp_path / "inference" / "console_val"
    folder.mkdir(parents=True)
    values = {"sem_seg": ("IoU", {"sky": 90.0, "cat": 10.0, "sea": None, "dog": 50.0}),
              "multilabel": ("AP", {"sky": 1.0, "cat": 2.0, "sea": 3.0})}  # fmt: skip
    for task, (metric, classes) in values.items():
        rows = [{"class": name, metric: value} for name, value in classes.items()]
        (folder / f"{task}.json").write_text(json.dumps({"rows": rows}))
    return cfg, {"sem_seg": {"mIoU": 50.0}, "multilabel": {"mAP": 2.0}}


def test_the_classes_come_at_the_end_the_worst_first(evaluated, lines, tmp_path, monkeypatch):
    (tmp_path / "inference" / "console_val" / "sheet.png").touch()
    title, head, *rows, numbers, pictures = lines(log_results, *evaluated)
    assert title == "console_val, classes, the worst first"
    assert head.split() == ["class", "IoU", "ranking", "AP"]
    assert [row.split() for row in rows] == [
        ["cat", "10.00", "2.00"], ["dog", "50.00", "-"], ["sky", "90.00", "1.00"],
        ["sea", "-", "3.00"],
    ]  # fmt: skip
    assert pictures == f"pictures: {tmp_path}/inference/console_val/sheet.png"
    monkeypatch.setattr(console, "_MOST_CLASSES", 1)
    assert "and 3 better ones" in lines(log_results, *evaluated)


def test_tables_of_an_earlier_run_are_not_shown(evaluated, lines):
    cfg, results = evaluated
    assert "90.00" not in "".join(lines(log_results, cfg, {"multilabel": results["multilabel"]}))
    assert lines(log_results, cfg, {}) == []


@pytest.mark.slow
def test_a_run_shows_a_page_before_the_first_iteration(tmp_path):
    opts = ["OUTPUT_DIR", "out", "SOLVER.MAX_ITER", "21", "SOLVER.IMS_PER_BATCH", "1"]
    opts += ["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", "('shapes_panoptic_val',)"]
    config = "--config-file", "shapes/panoptic/r10t_rankseg"
    command = [sys.executable, ROOT / "train_net.py", *config, *opts, "DATASETS.TEST", "()"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    shown = done.stdout.splitlines()
    first = next(i for i, line in enumerate(shown) if "20/21  loss" in line)
    assert 10 < first <= 40
    assert all(len(line) <= WIDTH for line in shown[first:]), shown[first:]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "CUDNN_BENCHMARK" in log and "Environment info" in log
    assert math.isfinite(json.loads((tmp_path / "out" / "metrics.json").read_text()
                                    .splitlines()[0])["total_loss"])  # fmt: skip
