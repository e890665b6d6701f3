"""How much memory there is, and how much a call needs at most."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_CGROUP = Path("/sys/fs/cgroup")  # the limits of a container


def peak_memory(function: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a call needs at most, above those in use before; None where it is not known.

    On a GPU those of PyTorch's tensors, on the CPU of Linux those of the process.
    """
    before = watch_memory(device)
    function()
    return None if before is None else highest_memory(device) - before


def watch_memory(device: torch.device) -> int | None:
    """The bytes in use, from where on the peak is counted; None where it is not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        return None
    return _of_process("VmRSS")


def highest_memory(device: torch.device) -> int | None:
    """The most bytes in use since `watch_memory` or the start; None where it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _of_process("VmHWM") if device.type == "cpu" else None


def free_memory(device: torch.device) -> int | None:
    """The bytes that may still be taken; None where it is not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = _read(Path("/proc/meminfo"), "MemAvailable:") if device.type == "cpu" else None
    return free if free is None else min(free, _left_in_container())


def _left_in_container() -> float:
    """The bytes that a cgroup still allows; files that are only cached do not count."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        in_use = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")
    return limit - in_use + (_read(_CGROUP / "memory.stat", "inactive_file", unit=1) or 0)


def _of_process(key: str) -> int | None:
    return _read(Path("/proc/self/status"), f"{key}:")


def _read(path: Path, key: str, unit: int = 1024) -> int | None:
    """The number in the line of `key`, in bytes; None where there is no such file or line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * unit for line in lines if line.startswith(key)), None)
