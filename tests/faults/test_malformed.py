"""Malformed input by chance: each case works or ends in a sentence. `make faults` tries more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPT = Path(__file__).with_name("malformed.py")
GROUPS = ["config_files", "options", "own_yaml", "coco", "panoptic"]
GROUPS += ["label_images", "panoptic_images", "images", "weights"]
SECONDS = os.environ.get("RANKSEG_FAULT_SECONDS", "2")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_malformed_input_ends_in_a_sentence(group):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RANKSEG_ENGINE": "embedded"}
    command = [sys.executable, str(SCRIPT), group, "--seconds", SECONDS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"\n{group}: {report['counts']}\n")
    assert report["bad"] == []
    assert report["counts"].get("sentence", 0) > 3
