"""Two processes measure of videos what one measures."""

import json
import os
import subprocess
import sys

import pytest
from support.evaluation_data import unregister
from support.paths import SUPPORT
from support.video_evaluation_process import LABELS, OBJECTS, evaluate, make_data

SCRIPT = SUPPORT / "video_evaluation_process.py"


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    data = make_data(tmp_path / "one")
    try:
        expected = evaluate(data, 0, 1)
    finally:
        unregister(OBJECTS)
        unregister(LABELS)
    env = {"PYTHONPATH": str(SCRIPT.parent.parent), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=os.environ | env | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert expected.keys() == {"segm", "sem_seg", "multilabel"}
    for name in ("halves", "all_in_one"):  # the second process may have no video, too
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["world_size"] == 2
        assert content["results"].keys() == expected.keys()
        for task, metrics in expected.items():
            found = content["results"][task]
            assert found == pytest.approx(metrics, rel=1e-6, nan_ok=True), task
