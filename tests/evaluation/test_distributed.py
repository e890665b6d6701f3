"""Two processes measure what one measures."""

import json
import os
import subprocess
import sys

import pytest
from support import evaluation_process, video_evaluation_process
from support.evaluation_data import unregister
from support.paths import ROOT, SUPPORT


@pytest.mark.slow
def test_images_in_two_processes_equal_one(tmp_path):
    records, outputs = evaluation_process.make_data(tmp_path / "one")
    try:
        expected = evaluation_process.evaluate(records, outputs, slice(None))
    finally:
        unregister(evaluation_process.NAME)
    assert 0 < expected["parsing"]["APp"] < 100
    check_two_processes("evaluation_process.py", tmp_path, expected)


@pytest.mark.slow
def test_videos_in_two_processes_equal_one(tmp_path):
    data = video_evaluation_process.make_data(tmp_path / "one")
    try:
        expected = video_evaluation_process.evaluate(data, 0, 1)
    finally:
        unregister(video_evaluation_process.OBJECTS)
        unregister(video_evaluation_process.LABELS)
    assert expected.keys() == {"segm", "sem_seg", "multilabel"}
    check_two_processes("video_evaluation_process.py", tmp_path, expected)


def check_two_processes(script, folder, expected):
    path = os.pathsep.join(map(str, (ROOT, SUPPORT.parent)))
    env = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, str(SUPPORT / script), str(folder)],
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for name in ("halves", "all_in_one"):  # the second process may also have no sample
        content = json.loads((folder / f"{name}.json").read_text())
        assert content["world_size"] == 2
        assert content["results"].keys() == expected.keys()
        for task, metrics in expected.items():
            found = content["results"][task]
            assert found == pytest.approx(metrics, rel=1e-6, nan_ok=True), task
