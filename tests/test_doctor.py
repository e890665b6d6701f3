import os
import subprocess
import sys

import pytest
from support.paths import ROOT

import rankseg_d2
from rankseg_d2 import doctor
from rankseg_d2.cli import main


def test_doctor_reports_versions_engine_device_and_op_backends(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert rankseg_d2.__version__ in text
    for topic in ("engine", "cpu", "cuda", "compiler", "op reference"):
        assert topic in text, topic
    assert text.rstrip().endswith("ready to run")


def test_doctor_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "rankseg_d2.cli", "doctor"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "ready to run" in done.stdout


def test_doctor_runs_although_the_real_detectron2_is_broken(tmp_path):
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN2at')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    environment.pop("RANKSEG_ENGINE", None)
    done = subprocess.run(
        [sys.executable, "-m", "rankseg_d2.cli", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "real detectron2 does not import: undefined symbol" in done.stdout
    assert "set RANKSEG_ENGINE=embedded" in done.stdout


def test_a_missing_and_an_old_package_are_faults_with_a_fix(monkeypatch):
    versions = {"torch": "2.3.1+cu121", "scipy": "1.11"}

    def version(name):
        if name not in versions:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    requirements = ["torch>=2.4", "scipy", "timm", 'ruff>=0.6; extra == "dev"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    torch, scipy, timm = doctor.packages()
    assert (torch.level, torch.text) == (doctor.FAULT, "2.3.1+cu121 is older than 2.4")
    assert torch.fix == "pip install --upgrade 'torch>=2.4'"
    assert scipy == doctor.Finding("scipy", "1.11")
    assert (timm.level, timm.fix) == (doctor.FAULT, "pip install 'timm'")


def test_faults_set_the_exit_status_and_stand_in_the_report(monkeypatch, capsys):
    fault = doctor.Finding("timm", "not installed", doctor.FAULT, "pip install timm")
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("cpu", "2 cores"), fault]))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "-> pip install timm" in text
    assert "1 fault" in text


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cu130", (2, 13, 0)), ("0.1.5.post20221221", (0, 1, 5)), ("3.0rc1", (3,))],
)
def test_release_numbers_are_read(version, numbers):
    assert doctor.release(version) == numbers


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["docter"])
    assert stop.value.code == 2
    assert "docter" in capsys.readouterr().err


def test_doctor_says_what_stickers_are_drawn_from(tmp_path, monkeypatch):
    monkeypatch.setattr("rankseg_d2.data.stickers.pictures._FONT_FOLDERS", (str(tmp_path),))
    monkeypatch.delenv("RANKSEG_EMOJI", raising=False)
    found = doctor.emoji_font()
    assert (found.level, found.fix) == (doctor.NOTE, "apt install fonts-noto-color-emoji")
    (tmp_path / "NotoColorEmoji.ttf").touch()
    assert doctor.emoji_font().text == f"drawn from {tmp_path / 'NotoColorEmoji.ttf'}"
    monkeypatch.setenv("RANKSEG_EMOJI", str(tmp_path))
    assert doctor.emoji_font().level == doctor.OK
    monkeypatch.setenv("RANKSEG_EMOJI", str(tmp_path / "nothing"))
    assert doctor.emoji_font().level == doctor.FAULT
