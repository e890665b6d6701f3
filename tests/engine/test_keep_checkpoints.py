"""SOLVER.KEEP_CHECKPOINTS: which old checkpoints go, and which never."""

import logging
import os
import signal
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT, SUPPORT
from support.toy import final_weights, toy_config, train
from torch import nn

from rankseg_d2.engine import Checkpointer


def checkpoints(folder):
    return sorted(path.name.removesuffix(".pth") for path in folder.glob("*.pth"))


def numbered(*iterations):
    return [f"model_{i:07d}" for i in iterations]


def save(folder, *names, keep=2, checkpointer=None):
    checkpointer = checkpointer or Checkpointer(nn.Linear(2, 2), str(folder), keep=keep)
    for name in names:
        checkpointer.save(name)
    return checkpointer


ALL = [2, 5, 8, 11]


@pytest.mark.parametrize("keep, left", [(0, ALL), (1, [11]), (2, [8, 11]), (9, ALL)])
def test_a_training_keeps_the_newest_and_the_final_one(tmp_path, keep, left):
    train(toy_config(tmp_path, "SOLVER.KEEP_CHECKPOINTS", keep))
    assert checkpoints(tmp_path) == [*numbered(*left), "model_final"]


def test_the_best_the_final_and_foreign_files_stay(tmp_path):
    foreign = [*numbered(0, 4, 99), "model_0000001_old", "other"]
    for name in foreign:
        (tmp_path / f"{name}.pth").touch()
    save(tmp_path, *numbered(1), "model_best", *numbered(2, 3), "model_final")
    kept = [*numbered(2, 3), "model_best", "model_final", *foreign]
    assert checkpoints(tmp_path) == sorted(kept)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_the_file_that_last_checkpoint_names_stays(tmp_path):
    """Even where it is older than what another run of the same checkpointer has written."""
    save(tmp_path, *numbered(7, 8, 3), keep=1)
    named = (tmp_path / "last_checkpoint").read_text()
    assert named == "model_0000003.pth" and (tmp_path / named).is_file()


def test_old_files_go_only_when_the_new_one_is_whole(tmp_path, monkeypatch):
    checkpointer = save(tmp_path, *numbered(1, 2))

    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError):
            checkpointer.save("model_0000003")
    assert checkpoints(tmp_path) == numbered(1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "tag_last_checkpoint", fail)
        with pytest.raises(OSError):
            checkpointer.save("model_0000003")
    assert checkpoints(tmp_path) == numbered(1, 2, 3)  # last_checkpoint still names 2
    checkpointer.save("model_0000004")
    assert checkpoints(tmp_path) == numbered(3, 4)


def test_a_resumed_run_knows_its_own_files(tmp_path):
    train(toy_config(tmp_path, "SOLVER.KEEP_CHECKPOINTS", 2, "SOLVER.MAX_ITER", 7))
    assert checkpoints(tmp_path) == [*numbered(2, 5), "model_final"]
    (tmp_path / "model_0000001.pth").write_bytes(b"of another run")
    train(toy_config(tmp_path, "SOLVER.KEEP_CHECKPOINTS", 2), resume=True)
    assert checkpoints(tmp_path) == [*numbered(1, 8, 11), "model_final"]


def test_a_run_that_kept_all_loses_none_of_them(tmp_path):
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", 7))
    train(toy_config(tmp_path, "SOLVER.KEEP_CHECKPOINTS", 1), resume=True)
    assert checkpoints(tmp_path) == [*numbered(2, 5, 11), "model_final"]


@pytest.mark.slow
def test_a_killed_run_prunes_and_comes_to_the_same_weights(tmp_path):
    keep = "SOLVER.KEEP_CHECKPOINTS", "1"
    train(toy_config(tmp_path / "whole"))
    for number in (3, 2):  # half of the third checkpoint, then of the second one after the resume
        command = [sys.executable, str(SUPPORT / "toy.py"), "--resume", str(tmp_path / "killed")]
        env = os.environ | {"PYTHONPATH": str(ROOT), "TOY_KILL_IN_SAVE": str(number)}
        done = subprocess.run([*command, *keep], env=env, stdout=subprocess.DEVNULL)
        assert done.returncode == -signal.SIGKILL
        named = (tmp_path / "killed" / "last_checkpoint").read_text()
        assert f"{checkpoints(tmp_path / 'killed')[-1]}.pth" == named
        torch.load(tmp_path / "killed" / named, weights_only=True)
    train(toy_config(tmp_path / "killed", *keep), resume=True)
    assert checkpoints(tmp_path / "killed") == [*numbered(11), "model_final"]
    expected = final_weights(tmp_path / "whole")
    for name, value in final_weights(tmp_path / "killed").items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("listed", [
    ["../other/model_0000001.pth", "/model_0000001.pth", "model_best.pth", 7, None], "model", 3,
])  # fmt: skip
def test_a_checkpoint_that_lists_other_files_removes_none(tmp_path, listed):
    checkpointer = save(tmp_path / "run", "model_best", *numbered(5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_0000001.pth").touch()
    content = torch.load(tmp_path / "run" / "model_0000005.pth", weights_only=True)
    torch.save(content | {"written": listed}, tmp_path / "run" / "model_0000005.pth")
    checkpointer.resume_or_load("", resume=True)
    save(tmp_path / "run", *numbered(6, 7, 8), checkpointer=checkpointer)
    assert (tmp_path / "other" / "model_0000001.pth").exists()
    assert checkpoints(tmp_path / "run") == [*numbered(5, 7, 8), "model_best"]


def test_a_file_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    checkpointer = save(tmp_path, *numbered(1))
    (tmp_path / "model_0000001.pth").unlink()
    (tmp_path / "model_0000001.pth").mkdir()
    save(tmp_path, *numbered(2, 3), checkpointer=checkpointer)
    assert checkpoints(tmp_path) == numbered(1, 2, 3)
    assert any("old checkpoint model_0000001.pth cannot" in line for line in caplog.messages)
