"""Two processes measure what one measures."""

import json
import os
import subprocess
import sys

import pytest
from support.evaluation_data import unregister
from support.evaluation_process import NAME, evaluate, make_data
from support.paths import SUPPORT

SCRIPT = SUPPORT / "evaluation_process.py"


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    records, outputs = make_data(tmp_path / "one")
    try:
        expected = evaluate(records, outputs, slice(None))
    finally:
        unregister(NAME)
    env = {"PYTHONPATH": str(SCRIPT.parent.parent), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=os.environ | env | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for name in ("halves", "all_in_one"):  # the second process may have no image, too
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["world_size"] == 2
        assert content["results"].keys() == expected.keys()
        for task, metrics in expected.items():
            found = content["results"][task]
            assert found == pytest.approx(metrics, rel=1e-6, nan_ok=True), task
