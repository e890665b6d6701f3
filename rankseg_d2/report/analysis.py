"""`rankseg-d2 analyze`: what a config's model costs, counted and measured on this device."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from detectron2.config import CfgNode

from ..config import get_config
from ..memory import peak_memory
from .counting import CONVENTION, Counts, count_config, make_model, make_sample

_WARM_UP = 64  # pixels of the side of the image that loads libraries on first use


@dataclass(frozen=True)
class Measured:
    """What predictions with random weights took on a device."""

    device: str
    threads: int | None  # of a CPU
    seconds: list[float]  # of each prediction, warm
    weights_mib: float
    peak_mib: float | None  # above the weights; None: this system does not tell


def run(args: argparse.Namespace) -> int:
    cfg = get_config(args.config, args.opts)
    cfg.MODEL.TIMM.PRETRAINED = None  # the values of the weights do not matter
    size = tuple(args.size or usual_size(cfg))
    counts = count_config(cfg, size, args.frames)
    measured = measure(cfg, size, args.frames, args.repeats) if args.repeats else None
    shown = [row for row in counts if row.name.count(".") < args.depth]
    if args.json:
        found = {"config": args.config, "size": size, "frames": args.frames}
        found |= {"convention": CONVENTION, "modules": [asdict(row) for row in shown]}
        found |= {"measured": None if measured is None else asdict(measured)}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        of = f"{args.frames} frames of " if args.frames > 1 else ""
        title = f"{args.config}, {of}{size[0]} x {size[1]} pixels"
        sys.stdout.write("\n\n".join([title, table(shown), CONVENTION]) + "\n")
        if measured is not None:
            sys.stdout.write("\n" + describe(measured) + "\n")
    return 0


def usual_size(cfg: CfgNode) -> tuple[int, int]:
    """The crops of a training, or an image of 480 x 640 as an evaluation resizes it."""
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE == "absolute":
        height, width = cfg.INPUT.CROP.SIZE
        return height, width
    scale = (cfg.INPUT.MIN_SIZE_TEST or 480) / 480
    scale = min(scale, cfg.INPUT.MAX_SIZE_TEST / 640)
    return int(480 * scale + 0.5), int(640 * scale + 0.5)


def measure(cfg: CfgNode, size: tuple[int, int], frames: int, repeats: int) -> Measured:
    """Time and memory of predictions, from an image in memory to all results of the config."""
    torch.manual_seed(0)
    device = torch.device(cfg.MODEL.DEVICE)
    model = make_model(cfg).to(device)
    is_gpu = device.type == "cuda"

    def predict(size: tuple[int, int]) -> None:
        model([make_sample(model, size, frames)])
        if is_gpu:
            torch.cuda.synchronize(device)

    def timed() -> float:
        start = time.perf_counter()
        predict(size)
        return time.perf_counter() - start

    with torch.no_grad():
        predict((_WARM_UP, _WARM_UP))
        peak = peak_memory(lambda: predict(size), device)  # warms up too
        seconds = [timed() for _ in range(repeats)]
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return Measured(
        torch.cuda.get_device_name(device) if is_gpu else str(device),
        torch.get_num_threads() if device.type == "cpu" else None,
        seconds,
        weights / 2**20,
        None if peak is None else peak / 2**20,
    )


def table(counts: Sequence[Counts]) -> str:
    """A line for each module, indented by its depth."""
    rows = [("", "parameters", "FLOPs", "activations")]
    for row in counts:
        depth = row.name.count(".") + bool(row.name)
        label = "  " * depth + (row.name.rpartition(".")[2] or "all")
        numbers = (_in(1e6, row.parameters, "M"), _in(1e9, row.flops, "G"))
        rows.append((label, *numbers, _in(1e6, row.activations, "M")))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:{width}}" + "".join(f"{n:>13}" for n in row[1:]) for row in rows)


def _in(unit: float, number: int, letter: str) -> str:
    return f"{number / unit:,.2f} {letter}" if number else "–"


def describe(measured: Measured) -> str:
    """One line about time and memory."""
    count = measured.threads
    threads = f" ({count} thread{'s' if count > 1 else ''})" if count else ""
    peak = measured.peak_mib
    memory = "an unknown peak" if peak is None else f"at most {peak:,.0f} MiB"
    milliseconds = [1000 * seconds for seconds in measured.seconds]
    return (
        f"On {measured.device}{threads}: {statistics.median(milliseconds):,.1f} ms for a "
        f"prediction with all its results, the median of {len(milliseconds)} (from "
        f"{min(milliseconds):,.1f} to {max(milliseconds):,.1f}); weights of "
        f"{measured.weights_mib:,.0f} MiB, and {memory} above them."
    )
