"""Trainings that are killed at any time, again and again: nothing is lost, nothing stays behind."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.paths import ROOT, SUPPORT
from support.toy import final_weights, toy_config, train

LIVES = int(os.environ.get("RANKSEG_LIVES", "4"))


def run(folder, *opts, kill_after=None, number=signal.SIGKILL):
    """Resume the toy training; the exit status."""
    command = [sys.executable, str(SUPPORT / "toy.py"), "--resume", str(folder), *map(str, opts)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.wait()


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_kills_at_any_time_lose_nothing(tmp_path, number):
    opts = ["SOLVER.MAX_ITER", 60, "SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 0]
    train(toy_config(tmp_path / "undisturbed", *opts))
    start = time.monotonic()
    assert run(tmp_path / "whole", *opts) == 0
    seconds, rng, kills = time.monotonic() - start, random.Random(0), 0
    for life in range(LIVES):
        folder = tmp_path / f"life{life}"
        while run(folder, *opts, kill_after=rng.uniform(0.3, 1.1) * seconds, number=number) != 0:
            kills += 1
            seconds *= 1.1  # the machine may have become slower than at the start
            assert kills < 40 * LIVES
        for name, value in final_weights(tmp_path / "undisturbed").items():
            assert torch.equal(value, final_weights(folder)[name]), name
        hidden = {path.name for path in folder.iterdir() if path.name.startswith(".")}
        assert hidden == {".lock"}  # nothing half written
    sys.stdout.write(f"\n{signal.Signals(number).name}: {kills} kills in {LIVES} lives\n")
    assert kills > 0
