"""docs/own_data.md: what it says to run runs, and its files are those of the example."""

import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

TEXT = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def run(words, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def in_this_checkout(line):
    """The words after `python` of a command, with scripts of this checkout and a short training."""
    program, *words = line.partition("#")[0].split()
    if program == "rankseg-d2":
        return ["-m", "rankseg_d2.cli", *words]
    assert program == "python", line
    short = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]
    return [str(ROOT / words[0]), *words[1:], *(short if words[0] == "train_net.py" else [])]


@pytest.mark.slow
def test_the_commands_and_the_python_of_the_docs_run(tmp_path):
    (commands,) = blocks("bash")
    written = [run(in_this_checkout(line), tmp_path) for line in commands.splitlines()]
    assert written[1].stdout.endswith("nothing is wrong\n")
    assert "kappa 99 %" in written[2].stdout
    assert "mIoU" in written[3].stdout + written[3].stderr

    files = [(tmp_path / "street" / name).read_text() for name in ("street.yaml", "train.yaml")]
    assert blocks("yaml")[:2] == files

    use = (
        "assert len(records) == 75 and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 6\n"
        "from rankseg_d2.cli import main\n"
        "assert main(['dataset', 'check', 'my_street']) == 0\n"
        "from rankseg_d2.data.mappers import build_mapper\n"
        "sample = build_mapper(cfg, is_train=True)(DatasetCatalog.get('my_street')[0])\n"
        "assert set(sample['sem_seg'].unique().tolist()) <= {0, 1, 2, 3, 4, 5, 255}\n"
    )
    run(["-c", "\n".join([*blocks("python"), use])], tmp_path)
