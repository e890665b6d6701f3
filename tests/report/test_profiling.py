"""`rankseg-d2 profile`: each moment counts for one stage, forward and backward."""

import json
import runpy
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from support import own_data
from support.paths import ROOT
from torch import nn

from rankseg_d2.cli import main
from rankseg_d2.report import profiling
from rankseg_d2.report.profiling import StageClock, table, timing

NAME = "shapes/panoptic/r10t_rankseg"
CPU = torch.device("cpu")


@pytest.fixture
def passing(monkeypatch):
    """Lets a clock of seconds pass, which nothing else moves."""
    now = [0.0]
    monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def wait(seconds):
        now[0] += seconds

    return wait


class Slow(nn.Module):
    """A layer whose passes take so many seconds."""

    def __init__(self, wait, forward, backward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.wait, self.seconds = wait, (forward, backward)

    def forward(self, x):
        forward, backward = self.seconds

        class Pass(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                self.wait(forward)
                return x * 1

            @staticmethod
            def backward(ctx, gradient):
                self.wait(backward)
                return gradient

        return Pass.apply(x * self.weight)


def test_within_another_stage_time_counts_for_the_inner_one_alone(passing):
    clock = StageClock(CPU)
    with clock.within("losses"):
        passing(1)
        with clock.within("matcher"):
            passing(5)
        passing(2)
    passing(4)
    found = clock.end_round()
    assert found == {("losses", False): 3, ("matcher", False): 5, ("rest", False): 4}
    assert not any(clock.end_round().values())


def test_the_backward_pass_counts_for_the_stage_that_computed_forward(passing):
    model = nn.Module()
    model.pixel_mean = torch.zeros(1)
    model.backbone, model.sem_seg_head = Slow(passing, 1, 10), nn.Module()
    model.sem_seg_head.predictor = Slow(passing, 2, 20)
    model.sem_seg_head.forward = lambda x: {"a": [model.sem_seg_head.predictor(x)]}
    untouched = model.backbone.forward
    with timing(model) as clock:
        (y,) = model.sem_seg_head(model.backbone(torch.ones(3)))["a"]
        with clock.within("losses", backward=True):
            y.sum().backward()
        found = clock.end_round()
    assert +found == {
        ("backbone", False): 1,
        ("transformer decoder", False): 2,
        ("backbone", True): 10,
        ("transformer decoder", True): 20,
    }
    assert model.backbone.forward == untouched  # nothing of it is left
    (*rows, every) = table([found])
    assert [row["stage"] for row in rows] == ["backbone", "transformer decoder"]
    assert every == {"stage": "all", "ms": 3000, "backward ms": 30000, "% of all": 100}
    assert sum(row["% of all"] for row in rows) == pytest.approx(100)


def test_without_a_backward_pass_it_has_no_column():
    rounds = [Counter({("data", False): seconds}) for seconds in (1, 2, 6)]
    assert table(rounds)[0] == {"stage": "data", "ms": 2000, "% of all": 100}


@pytest.fixture
def keys(tmp_path, clean_catalogs):
    description, _ = own_data.panoptic(tmp_path)
    return ["DATASETS.FILES", f"('{description}',)", "MODEL.RANKSEG.TOPK", "2"]


def profile(capsys, *words):
    assert main(["profile", NAME, *map(str, words)]) == 0
    return capsys.readouterr().out


def test_predictions_have_the_stages_of_a_prediction(keys, capsys):
    out = profile(capsys, *keys, "--repeats", 2)
    title, lines = out.strip().split("\n\n")
    assert title.startswith(f"{NAME}: medians of 2 predictions of 1, ")
    stages = [line.split("  ")[0] for line in lines.splitlines()]
    assert stages == [
        "stage", "data", "preprocessing", "backbone", "pixel decoder", "transformer decoder",
        "mask predictions", "head", "ranking", "class logits", "results", "rest", "all",
    ]  # fmt: skip


def test_training_steps_have_losses_and_a_backward_pass_and_a_trace(keys, capsys, tmp_path):
    trace = tmp_path / "trace.json"
    keys += ["SOLVER.IMS_PER_BATCH", "2"]
    found = json.loads(
        profile(capsys, *keys, "--train", "--repeats", 1, "--json", "--trace", trace)
    )
    assert found["config"] == NAME and found["of"] == "training steps of 2"
    rows = {row.pop("stage"): row for row in found["stages"]}
    for stage in ("backbone", "pixel decoder", "transformer decoder", "ranking", "losses"):
        assert rows[stage]["ms"] > 0 and rows[stage]["backward ms"] > 0
    assert rows["matcher"]["ms"] > 0 == rows["matcher"]["backward ms"]
    assert rows["optimizer"]["ms"] > 0
    total = sum(row["ms"] + row["backward ms"] for name, row in rows.items() if name != "all")
    assert total == pytest.approx(rows["all"]["ms"] + rows["all"]["backward ms"])
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"backbone", "matcher", "losses, backward"} <= names


def test_the_script_is_the_subcommand(monkeypatch, capsys):
    script = str(ROOT / "tools/profile_model.py")
    monkeypatch.setattr(sys, "argv", [script, NAME, "DATASETS.TEST", "()"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 1
    assert "DATASETS.TEST names no data set, whose images are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATASETS.TRAIN", "()", "--train"], "DATASETS.TRAIN names no data set"),
        (["--trace", "no/folder/trace.json"], "--trace no/folder/trace.json: the folder does not"),
        (["--weights", "no.pth"], "no.pth"),
    ],
)
def test_bad_input_is_one_sentence(keys, words, message, capsys):
    assert main(["profile", NAME, *keys, *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and "Traceback" not in line
