"""How runs end: in one sentence, after Ctrl-C with a checkpoint, and with their launcher."""

import logging
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.paths import ROOT, SUPPORT
from support.toy import ToyTrainer, final_weights, toy_config, train

from rankseg_d2.engine import end_in_a_sentence
from rankseg_d2.engine.ending import Interrupt

TOY = SUPPORT / "toy.py"


def start_toy(*args, ignore_interrupts=False, **env):
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | env
    pipe = subprocess.PIPE
    before = signal.getsignal(signal.SIGINT)
    if ignore_interrupts:  # which a started process inherits, as after & in a script
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(
            [sys.executable, str(TOY), *map(str, args)],
            env=os.environ | env, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- sentences ------------------------------------------------------------------------------------


def test_an_error_ends_the_process_with_its_sentence(capsys, monkeypatch):
    def fails():
        raise ValueError("a is wrong; set b")

    with pytest.raises(SystemExit) as end:
        end_in_a_sentence("train_net.py", fails)
    assert end.value.code == 1
    assert capsys.readouterr().err == "train_net.py: error: a is wrong; set b\n"
    monkeypatch.setenv("RANKSEG_TRACEBACK", "1")
    with pytest.raises(ValueError):
        end_in_a_sentence("train_net.py", fails)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_run_is_one_sentence_and_a_traceback_in_the_log(tmp_path, processes):
    args = ("--num-gpus", processes, "--dist-url", "auto", tmp_path)
    done = start_toy(*args, "SOLVER.MAX_ITER", 50, TOY_FAIL_AT="3")
    out, err = done.communicate()
    assert done.returncode == 1, err
    lines = [line for line in err.splitlines() if "error" in line]
    assert lines == ["toy.py: error: the toy is broken"], err
    assert "Traceback" not in out + err
    log = "".join(path.read_text() for path in tmp_path.glob("log.txt*"))
    assert "Traceback" in log and "the toy is broken" in log


@pytest.mark.slow
def test_the_traceback_is_shown_where_it_is_asked_for(tmp_path):
    opts = "SOLVER.MAX_ITER", 50
    done = start_toy("--num-gpus", 1, tmp_path, *opts, TOY_FAIL_AT="3", RANKSEG_TRACEBACK="1")
    out, err = done.communicate()
    assert done.returncode == 1 and "Traceback" in err


# --- Ctrl-C ---------------------------------------------------------------------------------------

LONG = ("SOLVER.MAX_ITER", 40, "SOLVER.CHECKPOINT_PERIOD", 100, "TEST.EVAL_PERIOD", 0)


class Interrupted(ToyTrainer):
    """Gets Ctrl-C within iteration 5, or within an evaluation."""

    at = "run_step"

    def run_step(self):
        if self.at == "run_step" and self.iter == 5:
            os.kill(os.getpid(), signal.SIGINT)
        super().run_step()

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        if cls.at == "test":
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("an evaluation goes on after Ctrl-C")
        return super().test(cfg, model, evaluators)


@pytest.mark.parametrize("at, iteration", [("run_step", 5), ("test", 9)])
def test_a_run_goes_on_exactly_after_ctrl_c(tmp_path, at, iteration, monkeypatch, capfd, caplog):
    opts = (*LONG, "TEST.EVAL_PERIOD", 10)
    train(toy_config(tmp_path / "whole", *opts))
    monkeypatch.setattr(Interrupted, "at", at)
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    cfg = toy_config(tmp_path / "stopped", *opts)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), caplog.at_level("WARNING", logger="rankseg_d2"):
        train(cfg, trainer_class=Interrupted)
    assert signal.getsignal(signal.SIGINT) is handler
    path = tmp_path / "stopped" / f"model_{iteration:07d}.pth"
    assert torch.load(path, weights_only=True)["iteration"] == iteration
    warned = "Ctrl-C: a checkpoint is saved after this step" in capfd.readouterr().err
    assert warned is (at == "run_step")
    assert f"{path} is whole: go on from it with --resume" in caplog.text
    assert train(cfg, resume=True).start_iter == iteration + 1
    expected = final_weights(tmp_path / "whole")
    for name, value in final_weights(tmp_path / "stopped").items():
        assert torch.equal(value, expected[name]), name


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same one, by the launcher
        assert interrupt.is_asked
        interrupt._time -= 1
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it goes on")


def test_ctrl_c_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        assert not interrupt.is_asked
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_in_a_terminal_saves_and_ends_with_130(tmp_path, processes):
    args = ("--num-gpus", processes, "--dist-url", "auto", tmp_path, "SOLVER.MAX_ITER", 100_000)
    done = start_toy(*args, "SOLVER.CHECKPOINT_PERIOD", 20, "TEST.EVAL_PERIOD", 0,
                     "DATALOADER.NUM_WORKERS", 2)  # fmt: skip
    wait_for(tmp_path / "last_checkpoint", done)
    os.killpg(done.pid, signal.SIGINT)  # a terminal's goes to all processes
    out, err = done.communicate()
    assert done.returncode == 130, err
    assert "Traceback" not in out + err
    (name,) = re.findall(r"Interrupted in iteration \d+; \S+/(\S+) is whole: go on from it", out)
    assert (tmp_path / "last_checkpoint").read_text() == name
    torch.load(tmp_path / name, weights_only=True)


# --- the launcher is killed -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_when_their_launcher_is_killed_in_a_script(tmp_path, number):
    args = ("--num-gpus", 2, "--dist-url", "auto", tmp_path, "SOLVER.MAX_ITER", 100_000)
    done = start_toy(*args, "TEST.EVAL_PERIOD", 0, ignore_interrupts=True)
    wait_for(tmp_path / "last_checkpoint", done)
    with open(f"/proc/{done.pid}/task/{done.pid}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    assert len(children) >= 2
    done.send_signal(number)
    done.wait()
    end = time.monotonic() + 20
    while any(map(is_alive, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_alive, children))
    done.communicate()
