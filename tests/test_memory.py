"""How much memory is free, and how much a call takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.paths import ROOT

from rankseg_d2 import memory
from rankseg_d2.memory import free_memory, highest_memory, peak_memory, watch_memory

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def test_free_memory_is_part_of_the_machine():
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    assert 0 < free_memory(CPU) < total
    assert highest_memory(CPU) < total


@pytest.mark.parametrize("limit, left", [("1000", 1000 - 900 + 300), ("max", None)])
def test_a_container_may_allow_less(monkeypatch, tmp_path, limit, left):
    free = 2**40
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    read = memory._read
    monkeypatch.setattr(memory, "_read", lambda path, key, unit=1024: (
        free if key == "MemAvailable:" else read(path, key, unit)))  # fmt: skip
    assert free_memory(CPU) == free  # no cgroup
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("file 400\ninactive_file 300\nactive_file 100\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory(CPU) == (free if left is None else left)


PEAKS = """
import torch
from rankseg_d2.memory import peak_memory
use = lambda mebibytes: torch.ones(mebibytes * 2**18).sum()
use(300)
print(*(peak_memory(call, torch.device("cpu")) / 2**20 for call in (lambda: use(80), int)))
"""


def test_peak_memory_is_that_of_the_call_alone():
    # In a process of its own: after many tests, this one may hold memory that a call can use.
    run = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    some, none = map(float, run.stdout.split())
    assert 75 <= some < 120
    assert none < 20


def test_other_devices_do_not_tell():
    mps = torch.device("mps")
    assert free_memory(mps) is watch_memory(mps) is highest_memory(mps) is None
    assert peak_memory(int, mps) is None


@pytest.mark.gpu
def test_memory_of_a_gpu():
    gpu = torch.device("cuda")
    assert 0 < free_memory(gpu) <= torch.cuda.get_device_properties(gpu).total_memory
    taken = peak_memory(lambda: torch.ones(100 * 2**18, device=gpu).sum(), gpu)
    assert 100 * 2**20 <= taken < 110 * 2**20
