"""What `pip install` brings: the package, its configs, and nothing of the tests."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from support.paths import ROOT

# imported where they are used
OPTIONAL = {"faster_coco_eval", "h5py", "onnxruntime", "onnxscript", "supervision"}


@pytest.mark.slow
def test_the_wheel_brings_the_configs_and_finds_them(tmp_path):
    source = tmp_path / "source"  # building leaves files beside the sources
    shutil.copytree(ROOT / "rankseg_d2", source / "rankseg_d2")
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-v", str(source), "--no-deps"]
    done = subprocess.run([*build, "-w", str(tmp_path)], capture_output=True, text=True)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert not re.findall(r".*(?:Setuptools\w*|BuildBackend)Warning.*", log)
    (wheel,) = tmp_path.glob("rankseg_d2-*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert "rankseg_d2/configs/toy/semantic/base.yaml" in names
    assert "rankseg_d2/_detectron2/data/datasets/coco.py" in names
    parts = {path.name for path in (ROOT / "rankseg_d2/predict/explore").glob("*.[chj]*")}
    assert {f"rankseg_d2/predict/explore/{part}" for part in parts} <= set(names)
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


def test_what_the_package_imports_is_declared():
    text = (ROOT / "pyproject.toml").read_text()
    listed = text[text.index("dependencies = [") : text.index("[project.optional")]
    declared = {name.lower() for name in re.findall(r'^  "([\w-]+)', listed, re.MULTILINE)}
    packages = importlib.metadata.packages_distributions()
    for path in (ROOT / "rankseg_d2").rglob("*.py"):
        for name in top_level_imports(path) - sys.stdlib_module_names - OPTIONAL - {"detectron2"}:
            assert declared & {one.lower() for one in packages[name]}, f"{path} imports {name}"


def top_level_imports(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in [*names, *(node.module for node in sources)]}
