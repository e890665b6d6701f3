"""The example of the README works; the scripts say in one line what is wrong."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT


def run(script, *args, cwd=None, check=True):
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, args)],
        cwd=cwd or ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def miou(output):
    """The last mIoU of the log's copy-and-paste lines."""
    rows = re.findall(r"copypaste: (\d[\d.]*),", (output / "log.txt").read_text())
    return float(rows[-1])


@pytest.mark.slow
def test_the_example_learns_draws_resumes_and_evaluates(tmp_path):
    output = tmp_path / "toy"
    short = ["OUTPUT_DIR", output, "SOLVER.MAX_ITER", 60, "SOLVER.STEPS", "(40,)"]
    run("examples/toy_segmentation.py", *short)
    trained = miou(output)
    assert trained > 40
    assert (output / "sheet.png").stat().st_size > 1000
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [row["total_loss"] for row in rows if "total_loss" in row]
    assert losses[-1] < losses[0]

    weights = ["--eval-only", "OUTPUT_DIR", output, "MODEL.WEIGHTS", output / "model_final.pth"]
    run("examples/toy_segmentation.py", *weights)
    assert miou(output) == trained

    longer = ["--resume", "OUTPUT_DIR", output, "SOLVER.MAX_ITER", 70]
    resumed = run("examples/toy_segmentation.py", *longer)
    assert "Starting training from iteration 60" in resumed.stdout + resumed.stderr


def test_train_net_without_a_config_says_what_to_give():
    done = run("train_net.py", check=False)
    assert done.returncode == 2
    assert "give --config-file" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config-file", "toy/semantic/r81"], "toy/semantic/r18"),
        (["--config-file", "toy/semantic/r18", "SOLVER.BASE_LT", "1"], "SOLVER.BASE_LR"),
        (["--config-file", "toy/semantic/r18", "SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
    ],
)
def test_train_net_names_the_fix_in_one_line(args, message, tmp_path):
    done = run("train_net.py", *args, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
