from pathlib import Path

import torch

from rankseg_d2.ops import library
from rankseg_d2.ops.ms_deform_attn import cuda
from rankseg_d2.ops.ms_deform_attn.reference import Inputs

SOURCES = Path(cuda.__file__).parent / "csrc/cuda"


def inputs(levels=1):
    value = torch.empty(1, levels, 2, 4)
    weights = torch.empty(1, 3, 2, levels, 4)
    return Inputs(value, ((1, 1),) * levels, weights[..., None].expand(1, 3, 2, -1, 4, 2), weights)


def test_says_why_it_cannot_run_here(monkeypatch):
    backend = cuda.Cuda()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backend.why_not(None) == "PyTorch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "BUILT", False)
    monkeypatch.setattr(library, "WHY_NOT", "it is compiled for torch 1.13.1")
    assert backend.why_not(None) == "it is compiled for torch 1.13.1"
    monkeypatch.setattr(library, "WHY_NOT", None)
    assert "installed without its CUDA kernels" in backend.why_not(None)
    monkeypatch.setattr(cuda, "BUILT", True)
    assert backend.why_not(None) is None
    assert backend.why_not(inputs()) == "value is on cpu, not on a CUDA device"


def test_says_what_is_too_large():
    assert cuda._too_large(inputs(levels=32)) is None
    assert cuda._too_large(inputs(levels=33)) == "it takes at most 32 levels, got 33"


def test_limits_are_those_of_the_kernels():
    text = (SOURCES / "problem.cuh").read_text()
    assert f"kMaxLevels = {cuda.MAX_LEVELS};" in text
    assert f"kMaxGridY = {cuda.MAX_IMAGES};" in text
    assert f"kThreads = {2**31 - 1 - cuda.MAX_QUERIES};" in text
