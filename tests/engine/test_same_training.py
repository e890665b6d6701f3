"""Two trainings on a CPU with the same seed and number of threads end with the same bits."""

import os
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT, SUPPORT


def tensors_of(state, path=""):
    """All tensors in a checkpoint, by their path."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    entries = state.items() if isinstance(state, dict) else enumerate(state)
    nested = (list, tuple, dict, torch.Tensor)
    found = {}
    for key, value in entries:
        if isinstance(value, nested):
            found |= tensors_of(value, f"{path}/{key}")
    return found


@pytest.mark.slow
def test_two_processes_with_two_threads_end_with_the_same_bits(tmp_path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(SUPPORT / "two_threads.py"), str(tmp_path), str(tmp_path / name)],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for name in "ab"
    ]  # together, so that they disturb each other
    assert [run.wait() for run in runs] == [0, 0]
    a, b = (
        tensors_of(torch.load(tmp_path / name / "model_final.pth", weights_only=True))
        for name in "ab"
    )
    assert a.keys() == b.keys() and len(a) > 400  # weights, and two moments of each
    assert not [name for name in a if not torch.equal(a[name], b[name])]
