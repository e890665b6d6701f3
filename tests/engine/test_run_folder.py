"""OUTPUT_DIR: half files, full disks, two trainings in one folder, states that do not fit."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from support.paths import ROOT
from support.toy import ToyTrainer, final_weights, toy_config, train
from torch import nn

from rankseg_d2.engine import Checkpointer, run_folder
from rankseg_d2.engine.checks import check_folder
from rankseg_d2.engine.run_folder import check_room, check_writable, last_checkpoint, lock


def save(folder, name="model_0000001", **parts):
    checkpointer = Checkpointer(nn.Linear(2, 2), str(folder))
    checkpointer.save(name, **parts)
    return checkpointer


def leave_half(folder):
    half = folder / ".0123456789abcdef.tmp.pth"
    half.write_bytes(b"half")
    return half


# --- half files -----------------------------------------------------------------------------------


def test_half_checkpoints_are_removed_at_the_next_save(tmp_path):
    half = leave_half(tmp_path)
    save(tmp_path)
    assert not half.exists()
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_half_checkpoints_are_removed_when_a_run_resumes(tmp_path):
    checkpointer = save(tmp_path)
    half = leave_half(tmp_path)
    checkpointer.resume_or_load("", resume=True)
    assert not half.exists()


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_full_disk_is_one_sentence_with_the_way_on(tmp_path, monkeypatch, by_torch):
    checkpointer = save(tmp_path)

    def is_full(data, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not by_torch:
                raise
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected") from error

    monkeypatch.setattr(torch, "save", is_full)
    message = (
        r"model_0000002\.pth could not be written: No space left on device; make room for it; "
        r".*model_0000001\.pth is whole: go on from it with --resume"
    )
    with pytest.raises(RuntimeError, match=message):
        checkpointer.save("model_0000002")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_other_errors_of_saving_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: [].pop())
    with pytest.raises(IndexError):
        save(tmp_path)


def test_room_for_a_checkpoint_is_probed(tmp_path, monkeypatch):
    model = nn.Linear(1024, 1024, bias=False)  # 4 MiB, with moments 12
    free = 12 * 2**20
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    check_room(str(tmp_path), model)
    with pytest.raises(RuntimeError, match="needs 16 MB"):
        check_room(str(tmp_path), model, has_average=True)
    free -= 1
    with pytest.raises(RuntimeError, match="room for 12 MB, but a checkpoint needs 12 MB; make ro"):
        check_room(str(tmp_path), model)


def test_a_full_disk_while_training_names_the_folder_and_the_way_on(tmp_path, monkeypatch):
    class Fails(ToyTrainer):
        @classmethod
        def build_evaluator(cls, cfg, name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def check_parts(self, cfg, model):
            pass

    cfg = toy_config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 1)
    with pytest.raises(RuntimeError, match="could not be written: No space.*_0000001.pth is whole"):
        train(cfg, trainer_class=Fails)


def test_a_disk_that_takes_no_byte_is_found_before_the_start(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RuntimeError, match=r"\(No space left on device\); make room, or set"):
        check_writable(str(tmp_path))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    checkpointer = save(tmp_path)
    nn.init.constant_(checkpointer.model.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="model_0000001.pth is whole: go on"):
        checkpointer.save("model_0000002")


# --- one training in a folder ---------------------------------------------------------------------

HOLD = """
import sys, time
import rankseg_d2
from rankseg_d2.engine.run_folder import lock
lock(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_training_in_a_folder_is_refused_while_the_first_lives(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        message = rf"another training writes to OUTPUT_DIR .*\(process {holder.pid} on .*\); wait"
        with pytest.raises(RuntimeError, match=message):
            lock(str(tmp_path))
        with pytest.raises(RuntimeError, match=message):
            check_folder(str(tmp_path), resume=True, eval_only=False)
        with pytest.raises(RuntimeError, match=message):
            ToyTrainer(toy_config(tmp_path))
        check_folder(str(tmp_path), resume=False, eval_only=True)  # an evaluation may run
        holder.kill()
        holder.wait()
    lock(str(tmp_path))  # that of a dead process is none
    lock(str(tmp_path))


def test_a_folder_with_a_run_asks_for_resume(tmp_path):
    check_folder(str(tmp_path), resume=False, eval_only=False)
    save(tmp_path, "model_final")
    for name in ("last_checkpoint", None):  # with and without it
        message = r"holds a run already, with model_final\.pth; go on from it with --resume, or set"
        with pytest.raises(RuntimeError, match=message):
            check_folder(str(tmp_path), resume=False, eval_only=False)
        check_folder(str(tmp_path), resume=True, eval_only=False)
        check_folder(str(tmp_path), resume=False, eval_only=True)
        if name:
            (tmp_path / name).unlink()


# --- what cannot be resumed -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\0b", b"", b"x" * 5000])
def test_a_damaged_last_checkpoint_leads_to_the_newest_whole_one(tmp_path, content):
    checkpointer = save(tmp_path)
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_a_last_checkpoint_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "last_checkpoint").mkdir()
    for use in (last_checkpoint, check_writable):
        with pytest.raises(ValueError, match="last_checkpoint should be a file.* remove it"):
            use(str(tmp_path))


def test_a_checkpoint_without_the_trainers_state_is_not_resumed(tmp_path):
    save(tmp_path)
    trainer = ToyTrainer(toy_config(tmp_path))
    torch.save({"model": trainer.model.state_dict()}, tmp_path / "model_0000001.pth")
    with pytest.raises(
        ValueError, match=r"1\.pth cannot be resumed: it has weights, but no "
    ):
        trainer.resume_or_load(resume=True)


WRONG_PARTS = {
    "iteration": ["5", -3, 1.5, None, {}],
    "_trainer": [None, {}, 3, {"iteration": 1}],
    "hooks": [3, {"LRScheduler": 3}, {"LRScheduler": {"last_epoch": "x"}}],
    "_trainer.optimizer": [None, [], {"state": {}}, {"state": {}, "param_groups": []}],
    "_trainer.optimizer.param_groups": [None, 3, [3], [{"params": "x"}]],
    "_trainer.optimizer.state.0.momentum_buffer": [torch.zeros(3), "x"],
    "_trainer.seed": ["x", None],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    cfg = toy_config(folder, "SOLVER.OPTIMIZER", "SGD", "SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 0)
    train(cfg)
    return cfg, torch.load(folder / "model_final.pth", weights_only=True)


@pytest.mark.parametrize(
    "part, value", [(part, value) for part, values in WRONG_PARTS.items() for value in values]
)
def test_a_state_with_a_wrong_part_is_one_sentence(tmp_path, finished, part, value):
    cfg, content = finished
    path = tmp_path / "model_final.pth"
    torch.save(content, path)
    content = torch.load(path, weights_only=True)
    *sections, name = [int(x) if x.isdigit() else x for x in part.split(".")]
    state = content["trainer"]
    for section in sections:
        state = state[section]
    assert name in state
    state[name] = value
    torch.save(content, path)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(tmp_path)
    with pytest.raises(
        ValueError, match=r"_final\.pth cannot be resumed: its state of the "
    ):
        ToyTrainer(cfg).resume_or_load(resume=True)


def test_a_state_that_is_whole_is_resumed(tmp_path, finished):
    cfg, content = finished
    assert final_weights(cfg.OUTPUT_DIR).keys() == content["model"].keys()
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4
