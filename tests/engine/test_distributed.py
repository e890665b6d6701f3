"""Two processes on the CPU do what one does, started by --num-gpus and by torchrun."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from support.paths import ROOT, SUPPORT
from support.toy import final_weights, toy_config, train

from rankseg_d2.engine import launch

TOY = SUPPORT / "toy.py"
# Dropout differs from rank to rank. Without grouping, two ranks take the samples that one takes.
ALIKE = ("MODEL.MASK_FORMER.DROPOUT", "0.0", "DATALOADER.ASPECT_RATIO_GROUPING", "False")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_toy(*args, launcher=()):
    root = str(ROOT)
    env = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, str(TOY), *map(str, args)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True)


def two_processes(output_dir, *opts, resume=()):
    return run_toy("--num-gpus", 2, "--dist-url", "auto", *resume, output_dir, *opts)


def results_of(output_dir):
    return json.loads((output_dir / "results.json").read_text())


def losses_of(output_dir):
    """The last loss of all ranks, by iteration."""
    rows = map(json.loads, (output_dir / "metrics.json").read_text().splitlines())
    return {row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A training in this process: the folder, and its evaluation results."""
    folder = tmp_path_factory.mktemp("one")
    trainer = train(toy_config(folder, *ALIKE, "SOLVER.CHECKPOINT_PERIOD", 100))
    return folder, trainer.test(trainer.cfg, trainer.model)


def assert_close_to(one_process, output_dir):
    folder, results = one_process
    for name, weight in final_weights(folder).items():
        torch.testing.assert_close(final_weights(output_dir)[name], weight, rtol=1e-4, atol=1e-6)
    losses, expected = losses_of(output_dir), losses_of(folder)
    assert len(expected) == 1 and losses == pytest.approx(expected, rel=1e-4)
    found = results_of(output_dir)
    assert found["world_size"] == 2
    assert found["toy"]["toy"]["error"] == pytest.approx(results["toy"]["error"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path, one_process):
    run = two_processes(tmp_path, *ALIKE)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "starts 2 processes on the CPU" in run.stderr
    assert_close_to(one_process, tmp_path)
    assert (tmp_path / "log.txt.rank1").exists()


@pytest.mark.slow
def test_torchrun_with_accumulation_trains_and_evaluates_as_one_process(tmp_path, one_process):
    run = run_toy(tmp_path, *ALIKE, "SOLVER.ACCUMULATION_STEPS", "2", launcher=TORCHRUN)
    assert run.returncode == 0, run.stderr[-3000:]
    assert_close_to(one_process, tmp_path)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(tmp_path):
    """With dropout and grouping; the seed is drawn at the start and lives in the checkpoint."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run = two_processes(whole, "SEED", -1)
    assert run.returncode == 0, run.stderr[-3000:]
    resumed.mkdir()
    shutil.copy(whole / "model_0000005.pth", resumed)
    (resumed / "last_checkpoint").write_text("model_0000005.pth")
    run = two_processes(resumed, "SEED", -1, resume=["--resume"])
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Starting training from iteration 6" in (resumed / "log.txt").read_text()
    for name, weight in final_weights(whole).items():
        assert torch.equal(final_weights(resumed)[name], weight), name


def arguments(**changes):
    defaults = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return Namespace(**(defaults | changes))


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_zero_or_one_runs_in_this_process(num_gpus):
    ran_in = []
    launch(lambda args: ran_in.append((os.getpid(), args.num_gpus)), arguments(num_gpus=num_gpus))
    assert ran_in == [(os.getpid(), num_gpus)]


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--num-gpus 3 asks for 3 GPUs, but this machine has 2"):
        launch(print, arguments(num_gpus=3))
    for name, value in zip(
        ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        ("3", "3", "4", "4", "localhost", "29500"),
        strict=True,
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="torchrun has started 4 processes.*has 2"):
        launch(print, arguments())


def test_negative_number_of_gpus_is_an_error():
    with pytest.raises(ValueError, match="--num-gpus must be 0 or more, not -1"):
        launch(print, arguments(num_gpus=-1))


def test_missing_torchrun_variables_are_named(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR"):
        launch(print, arguments())
