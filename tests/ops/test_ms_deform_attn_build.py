"""Installing: the ops are compiled where that is possible, and missed nowhere."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT

from rankseg_d2 import doctor
from rankseg_d2.ops import library

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
NEEDS_OPS = pytest.mark.skipif(library.WHY_NOT is not None, reason=str(library.WHY_NOT))

# In a process of its own: a library registers its operations once and for all.
COMPARE = """
import sys, torch
sys.path.insert(0, "tests")
from support.deform import make, with_grads
for channels, points, dtype in ((32, 4, torch.float32), (5, 3, torch.float64)):
    for op in ("plain", "fused"):
        tensors = make(op, queries=40, channels=channels, points=points, dtype=dtype)
        right = with_grads(op, [t.double() for t in tensors], backend="reference")
        for one, two in zip(with_grads(op, tensors, backend="cpu"), right, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
print("equal on", torch.backends.cpu.get_cpu_capability())
"""


def run(*command, cwd=ROOT, **environment):
    environment = {**os.environ, "PYTHONPATH": str(cwd), **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def sources(tmp_path):
    """A copy of what is compiled: building leaves files beside the sources."""
    shutil.copytree(
        ROOT / "rankseg_d2", tmp_path / "rankseg_d2", ignore=shutil.ignore_patterns("*.so")
    )
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("data"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def is_compiled_here():
    """Whether the library that other tests use is made of the sources as they are."""
    sources = (ROOT / "rankseg_d2/ops").glob("*/csrc/**/*.*")
    built = library.WHY_NOT is None and library.LIBRARY.stat().st_mtime
    return built and all(built >= file.stat().st_mtime for file in sources)


@NEEDS_COMPILER
@pytest.mark.skipif(is_compiled_here(), reason="setup.py has compiled these sources already")
@pytest.mark.slow
def test_setup_compiles_ops_that_equal_the_reference(sources):
    built = run("setup.py", "build_ext", "--inplace", cwd=sources, FORCE_CUDA="0", MAX_JOBS="2")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "no CUDA kernels are compiled: FORCE_CUDA is 0" in built.stderr
    assert (sources / "rankseg_d2/_C.so").exists(), built.stdout + built.stderr
    done = run("-W", "ignore", "-c", COMPARE, cwd=sources)
    assert done.stdout.startswith("equal on"), done.stderr


@pytest.mark.slow
def test_setup_goes_on_without_a_compiler(sources):
    done = run("setup.py", "build_ext", "--inplace", cwd=sources, CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("rankseg_d2: ")]
    assert "no ops are compiled, because there is no C++ compiler (no-such-compiler)" in line
    assert not (sources / "rankseg_d2/_C.so").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CXX": "no-such-compiler"}, "there is no C++ compiler (no-such-compiler)"),
        ({"CUDA_HOME": "/nowhere"}, "no CUDA kernels are compiled: "),
    ],
)
def test_force_cuda_ends_with_an_error(sources, environment, reason):
    done = run("setup.py", "build_ext", "--inplace", cwd=sources, FORCE_CUDA="1", **environment)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.rstrip().endswith("FORCE_CUDA is 1")


@pytest.mark.slow
def test_setup_goes_on_where_the_sources_do_not_compile(sources):
    (sources / "rankseg_d2/ops/ms_deform_attn/csrc/ops.cpp").write_text("#error nothing here\n")
    for source in (sources / "rankseg_d2/ops").glob("*/csrc/**/*.cpp"):
        if source.name != "ops.cpp":
            source.write_text("")
    done = run("setup.py", "build_ext", "--inplace", cwd=sources, FORCE_CUDA="0")
    assert done.returncode == 0, done.stderr
    assert "no ops are compiled, because the build failed" in done.stderr
    assert "no CUDA kernels are compiled: FORCE_CUDA is 0" in done.stderr


@pytest.mark.slow
def test_setup_goes_on_where_torch_is_missing(sources):
    (sources / "torch.py").write_text("raise ImportError('no torch in an isolated build')")
    done = run("setup.py", "build_ext", "--inplace", cwd=sources)
    assert done.returncode == 0, done.stderr
    assert "torch does not import here (no torch in an isolated build)" in done.stderr
    assert "pip install -v --no-build-isolation -e ." in done.stderr


@NEEDS_OPS
@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_each_instruction_set_equals_the_reference(capability):
    if capability == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("needs a processor with AVX-512, which torch would use unasked")
    done = run("-W", "ignore", "-c", COMPARE, ATEN_CPU_CAPABILITY=capability)
    assert done.stdout.startswith("equal on"), done.stderr


def test_a_missing_library_says_how_to_build_it(tmp_path):
    reason = library.load(tmp_path / "_C.so")
    assert reason == (
        "it is not compiled; in rankseg_d2's source folder: pip install --no-build-isolation -e ."
    )


def test_a_library_for_another_torch_is_not_loaded(tmp_path):
    file = tmp_path / "_C.so"
    file.write_bytes(b"...rankseg_d2 is built for torch 1.13.1\0...")
    reason = library.load(file)
    assert reason.startswith(
        f"it is compiled for torch 1.13.1, but this is torch {torch.__version__}"
    )
    assert reason.endswith("build it again: pip install --no-build-isolation -e .")


def test_a_broken_library_is_named(tmp_path):
    file = tmp_path / "_C.so"
    file.write_bytes(b"rankseg_d2 is built for torch " + torch.__version__.encode() + b"\0")
    assert "the compiled part does not load (" in library.load(file)


@NEEDS_OPS
def test_the_library_says_which_torch_it_is_built_for():
    assert b"rankseg_d2 is built for torch 2." in library.LIBRARY.read_bytes()


def test_doctor_says_what_is_missing_and_how_to_get_it(monkeypatch):
    monkeypatch.setattr(library, "WHY_NOT", "it is not compiled")
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    finding = doctor.compiler()
    assert (finding.level, finding.text) == (doctor.NOTE, "none found; the ops are not compiled")
    assert "install a C++ compiler" in finding.fix
    assert "pip install --no-build-isolation -e ." in finding.fix
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    assert doctor.compiler().fix.startswith("run in rankseg_d2's source folder: pip install")
    assert ("op cpu", "it is not compiled") in [(f.topic, f.text) for f in doctor.op_backends()]
