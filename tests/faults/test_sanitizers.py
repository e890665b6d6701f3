"""The C++ parts under the address and undefined-behaviour sanitizers: no report."""

import os
import shutil
import subprocess
import sys

import pytest
from support.paths import ROOT

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
TESTS = "tests/ops/test_rle.py", "tests/ops/test_ms_deform_attn_backends.py"


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_no_sanitizer_reports_anything(tmp_path):
    for name in ("rankseg_d2", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "FORCE_CUDA": "0", "CC": "gcc", "CXX": "g++"}
    build = env | {"CFLAGS": f"{FLAGS} -g -O1", "LDFLAGS": FLAGS}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tmp_path, env=build, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "rankseg_d2" / "_C.so").is_file()
    libraries = [_path_of("libasan.so"), _path_of("libubsan.so")]
    env |= {
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Sanitizer" not in done.stdout + done.stderr
    sys.stdout.write(f"\nunder the sanitizers: {done.stdout.splitlines()[-1]}\n")


def _path_of(library):
    found = subprocess.run(
        ["gcc", f"-print-file-name={library}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()
