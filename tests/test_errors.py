"""Errors in one sentence, on the console and out of the command."""

import errno

import pytest

from rankseg_d2 import doctor
from rankseg_d2.cli import main
from rankseg_d2.errors import INTERRUPTED, sentence


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("a is wrong;\n   set b"), "a is wrong; set b"),
        (KeyError("SOLVER.X: 'y' is not known"), "SOLVER.X: 'y' is not known"),
        (FileNotFoundError("a.pth does not exist. Fix it."), "a.pth does not exist. Fix it."),
        (OSError(errno.ENOSPC, "No space left", "/data/x"), "/data/x: No space left"),
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (RuntimeError("a" * 5000), "a" * 1500 + "…"),
        (TypeError("no"), "TypeError: no (RANKSEG_TRACEBACK=1 shows where)"),
        (ValueError(), "ValueError:  (RANKSEG_TRACEBACK=1 shows where)"),
    ],
)
def test_an_error_is_one_line(error, text):
    assert sentence(error) == text


@pytest.mark.parametrize(
    "error, status, text",
    [
        (OSError(errno.ENOSPC, "full", "x"), 1, "rankseg-d2 doctor: error: x: full\n"),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)
def test_the_command_ends_in_a_sentence(error, status, text, capsys, monkeypatch):
    def fails(*args):
        raise error

    monkeypatch.delenv("RANKSEG_TRACEBACK", raising=False)
    monkeypatch.setattr(doctor, "examine", fails)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err == text


def test_the_command_shows_the_traceback_where_it_is_asked_to(monkeypatch):
    def fails(*args):
        raise ValueError

    monkeypatch.setenv("RANKSEG_TRACEBACK", "1")
    monkeypatch.setattr(doctor, "examine", fails)
    with pytest.raises(ValueError):
        main(["doctor"])
