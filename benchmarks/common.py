"""What the benchmarks share: the machine, timing in turn, memory, comparing, and reports."""

import argparse
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import rankseg_d2  # scripts import this module before detectron2, which this makes importable

LOAD = os.getloadavg()[0]  # other work on the machine, before ours


def make_parser(doc: str, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser described by a script's docstring, with --repeats if it has a default."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    if repeats:
        parser.add_argument("--repeats", type=int, default=repeats, help="rounds of timing")
    return parser


def time_in_turn(
    functions: Mapping[str, Callable[..., Any]],
    repeats: int,
    *,
    arguments: Callable[[int], tuple] = lambda number: (),
    clock: Callable[[], float] = time.perf_counter,
    best_of: int = 1,
    warm_up: bool = False,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each function in each round, and what each one returned last.

    In a round the functions run one after the other; every other round has the opposite order.

    Args:
        arguments: what a function gets in a round (from 0); made before each call, untimed.
        clock: time.process_time counts CPU seconds of all threads.
        best_of: calls of a function in a round, of which the fastest counts.
        warm_up: first call each function once, untimed.
    """
    seconds, results = {name: [] for name in functions}, {}
    if warm_up:
        for function in functions.values():
            function(*arguments(0))
    for number in range(repeats):
        for name in list(functions)[:: -1 if number % 2 else 1]:
            calls = []
            for _ in range(best_of):
                given = arguments(number)
                _synchronize()
                start = clock()
                results[name] = functions[name](*given)
                _synchronize()
                calls.append(clock() - start)
            seconds[name].append(min(calls))
    return seconds, results


def _synchronize() -> None:
    """Wait for the GPU, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times faster `fast` was, round by round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def times_faster(slow: Sequence[float], fast: Sequence[float], digits: int = 1) -> str:
    """The median of the rounds' ratios, the lowest and the highest: 2.9 (2.2, 3.1)."""
    found = ratios(slow, fast)
    low, high = min(found), max(found)
    return f"{statistics.median(found):.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


def check_equal(ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float) -> float:
    """The largest difference from `theirs`; ends the script if it is above the tolerance."""
    for name, value in theirs.items():
        if not abs(ours[name] - value) <= tolerance:
            sys.exit(f"{name} differs: {ours[name]} and {value}")
    return max(abs(ours[name] - value) for name, value in theirs.items())


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns in a new process, whose peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def resident_mib() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """The most memory that this process has held so far (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_model(keys: dict[str, Any]) -> nn.Module:
    """A model in evaluation mode, of the default config with these keys."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    import rankseg_d2.modeling  # noqa: F401  (registers the models)
    from rankseg_d2.config import add_rankseg_config

    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.merge_from_list([word for item in keys.items() for word in item])
    return build_model(cfg).eval()


def load_module(path: str | Path) -> ModuleType:
    """A Python file of another project, without the package around it."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require_detectron2() -> None:
    """End the script where detectron2 is only embedded."""
    if rankseg_d2.engine_name() != "detectron2":
        sys.exit("this compares with the real detectron2, which is not installed here")


def write_heading(title: str, description: str, device: str = "cpu", **versions: str) -> None:
    """The title of a report, what was measured, and on which machine."""
    lines = [" ".join(description.split()), _machine(device, **versions)]
    lines = [textwrap.fill(line, 100, break_on_hyphens=False) for line in lines]
    write(f"# {title}\n\n" + "\n".join(lines) + "\n\n")


def _machine(device: str = "cpu", **versions: str) -> str:
    """Processor or GPU, threads, versions of the libraries, and the load."""
    threads = torch.get_num_threads()
    versions = {"PyTorch": torch.__version__} | versions | {"Python": platform.python_version()}
    parts = [
        processor(device),
        f"{threads} CPU thread{'s' if threads > 1 else ''} "
        f"({torch.backends.cpu.get_cpu_capability()})",
        *(f"{name} {version}" for name, version in versions.items()),
    ]
    return f"{', '.join(parts)}; load average {LOAD:.1f} from other work before the start."


def processor(device: str = "cpu") -> str:
    """The name of the GPU or the CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A markdown table; each row is written as soon as `rows` gives it."""
    write(_table_row(heads) + "|" + "---|" * len(heads) + "\n")
    for row in rows:
        write(_table_row(row))


def _table_row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
