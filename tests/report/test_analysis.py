"""`rankseg-d2 analyze` writes what was counted and measured."""

import json
import runpy
import sys

import pytest
import torch
from support.paths import ROOT
from support.small import MASK2FORMER, RANKSEG, VIDEO, make_config

from rankseg_d2.cli import main
from rankseg_d2.config import get_config
from rankseg_d2.report.analysis import describe, measure, usual_size
from rankseg_d2.report.counting import CONVENTION, count_config

NAME = "shapes/panoptic/r10t_rankseg"
ALL = {f"MODEL.MASK_FORMER.TEST.{task}_ON": True for task in ("SEMANTIC", "INSTANCE")}


def analyze(capsys, *words):
    assert main(["analyze", *words]) == 0
    return capsys.readouterr().out


def test_the_table_has_the_numbers_down_to_the_depth_and_their_convention(capsys):
    out = analyze(capsys, NAME, "MODEL.RANKSEG.TOPK", "20", "--size", "64", "80", "--repeats", "2")
    rows = count_config(get_config(NAME, ["MODEL.RANKSEG.TOPK", 20]), (64, 80))
    title, table, convention, measured = out.strip().split("\n\n")
    assert title == f"{NAME}, 64 x 80 pixels"
    assert convention == CONVENTION
    head, *lines = table.splitlines()
    assert head.split() == ["parameters", "FLOPs", "activations"]
    shown = [row for row in rows if row.name.count(".") < 2]
    assert len(lines) == len(shown) > 8
    assert lines[0].split()[:3] == ["all", f"{rows[0].parameters / 1e6:.2f}", "M"]
    assert lines[0].split()[3:5] == [f"{rows[0].flops / 1e9:.2f}", "G"]
    assert any(line.startswith("    pixel_decoder ") for line in lines)
    assert "the median of 2" in measured


def test_json_has_every_digit(capsys):
    words = ("--size", "64", "80", "--depth", "1", "--repeats", "0", "--json")
    found = json.loads(analyze(capsys, NAME, *words))
    rows = count_config(get_config(NAME), (64, 80))
    shown = [vars(row) for row in rows if "." not in row.name]
    assert found["modules"] == shown
    assert [found[key] for key in ("config", "size", "frames")] == [NAME, [64, 80], 1]
    assert found["convention"] == CONVENTION and found["measured"] is None


def test_the_script_is_the_subcommand(monkeypatch, capsys):
    script = str(ROOT / "tools/analyze_model.py")
    words = ["shapes/video_semantic/r10t", "--frames", "2", "--size", "32", "32", "--repeats", "0"]
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert not ended.value.code
    assert "shapes/video_semantic/r10t, 2 frames of 32 x 32 pixels\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, size",
    [
        ("ade20k/semantic/r50", (512, 512)),
        ("ade20k/semantic/swin_l", (640, 640)),
        ("coco/panoptic/r50", (800, 1067)),
        ("coco/panoptic/maskformer_r50", (800, 1067)),
        ("ytvis_2019/instance/r50", (360, 480)),
    ],
)
def test_the_usual_size_is_that_of_crops_or_of_an_evaluation(name, size):
    assert usual_size(get_config(name)) == size


def test_the_usual_size_keeps_to_the_longest_side():
    assert usual_size(get_config("coco/panoptic/r50", ["INPUT.MAX_SIZE_TEST", 640])) == (480, 640)


@pytest.mark.parametrize("keys", [MASK2FORMER | RANKSEG | ALL, MASK2FORMER | VIDEO])
def test_time_and_memory_of_predictions_are_measured(keys):
    cfg = make_config(keys)
    measured = measure(cfg, (64, 96), 2 if keys.get("MODEL.META_ARCHITECTURE") else 1, 3)
    assert len(measured.seconds) == 3 and min(measured.seconds) > 0
    assert (measured.device, measured.threads) == ("cpu", torch.get_num_threads())
    parameters = count_config(cfg, (64, 96))[0].parameters
    assert measured.weights_mib == pytest.approx(4 * parameters / 2**20, rel=0.02)
    assert describe(measured).startswith(f"On cpu ({measured.threads} thread")


@pytest.mark.parametrize(
    "words, message",
    [
        (["ade20k/semantic/r5"], "nearest names are ade20k/semantic/r50"),
        ([NAME, "MODEL.RANKSEG.TOPC", "3"], "nearest names are MODEL.RANKSEG.TOPK"),
        ([NAME, "MODEL.RANKSEG.TOPK", "300"], "TOPK"),
        ([NAME, "--frames", "2"], "takes images, but 2 frames"),
        (["toy/semantic/r18"], "MODEL.META_ARCHITECTURE: 'ToySegmenter' is not known"),
    ],
)
def test_a_bad_config_ends_in_one_sentence(words, message, capsys):
    assert main(["analyze", *words]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("rankseg-d2 analyze") and message in error


@pytest.mark.parametrize(
    "option", ["--size 0 64", "--size 64", "--size a b", "--depth 0", "--repeats -1"]
)
def test_a_bad_option_is_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", NAME, *option.split()])
    assert ended.value.code == 2
    assert option.split()[0] in capsys.readouterr().err
