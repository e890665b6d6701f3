"""What `pip install` brings: the package, its configs, and nothing of the tests."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from support.paths import ROOT


@pytest.mark.slow
def test_the_wheel_brings_the_configs_and_finds_them(tmp_path):
    source = tmp_path / "source"  # building leaves files beside the sources
    shutil.copytree(ROOT / "rankseg_d2", source / "rankseg_d2")
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "-w", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("rankseg_d2-*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert "rankseg_d2/configs/toy/semantic/base.yaml" in names
    assert "rankseg_d2/_detectron2/data/datasets/coco.py" in names
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks"))]

    script = (
        "from rankseg_d2 import get_config\n"
        "for name in ('toy/semantic/r18', 'shapes/panoptic/r10t_rankseg_gt'):\n"
        "    print(get_config(name).OUTPUT_DIR)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["output/toy", "output/shapes/r10t_rankseg_gt"], done.stderr
