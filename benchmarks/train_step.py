"""Time of a training step with RankSeg and without, in turn, on batches of the config's data.

    python benchmarks/train_step.py shapes/panoptic/lite0_rankseg [CONFIG ...] [--repeats 15]
        [--threads 1] [--set MODEL.RANKSEG.TOPK_SCHEDULE=[]]
    python benchmarks/train_step.py --reference path/to/Mask2Former [--sizes 256 512] [--batch 2]
        [--device cpu] [--amp]

The baseline is the same config without `_rankseg`. Both see the same batches, in one process. Times
are of the processor, over all threads, so that other work on the machine counts little.

With `--reference` the peer is the code of Mask2Former's authors, a checkout of it: Mask2Former R50
for ADE20K, with the same weights and drawn images, in float32. It needs the real detectron2, on a
GPU its own kernel too, and on a CPU it samples by PyTorch's grid_sample. It runs in a process of
its own; all take turns, and clock time counts, so the machine must be quiet. `--amp` is autocast to
bfloat16: on a GPU of both, on a CPU of ours alone, against theirs in float32.
"""

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import reference_mask2former
import torch
from common import (
    make_parser,
    ratios,
    require_detectron2,
    time_in_turn,
    times_faster,
    write_heading,
    write_table,
)
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from reference_mask2former import CLASSES, OBJECTS, step_of

from rankseg_d2 import build_model, get_config
from rankseg_d2.engine import Checkpointer, Trainer, end_in_a_sentence

BATCHES = 8
OURS = "ade20k/semantic/r50"  # the config of the reference's model
TOLERANCE = 0.05  # of the losses: each way draws other points


def make_step(cfg: CfgNode, batches: list[list[dict]]) -> Callable[[int], None]:
    """A function that trains on the batch of a round."""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, model)

    def step(number: int) -> None:
        losses = model(batches[number % len(batches)])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def time_pair(name: str, keys: list[str], repeats: int) -> tuple[list[float], list[float], CfgNode]:
    """Processor seconds without and with RankSeg, and the config of the latter."""
    ranked = get_config(name, keys)
    plain = get_config(name.removesuffix("_rankseg"), keys)
    loader = iter(Trainer.build_train_loader(ranked))
    batches = [next(loader) for _ in range(BATCHES)]
    ways = {key: make_step(cfg, batches) for key, cfg in (("plain", plain), ("ranked", ranked))}
    with EventStorage(10**9):  # after the last iteration of any schedule
        seconds, _ = time_in_turn(
            ways, repeats, arguments=lambda number: (number,), clock=time.process_time, warm_up=True
        )
    return seconds["plain"], seconds["ranked"], ranked


def rows(names: list[str], keys: list[str], repeats: int) -> Iterator[list[str]]:
    for name in names:
        plain, ranked, cfg = time_pair(name, keys, repeats)
        low, middle, high = statistics.quantiles(ratios(ranked, plain), n=4)
        yield [
            f"`{name}`",
            str(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
            str(cfg.MODEL.RANKSEG.TOPK),
            f"{statistics.median(plain):.3f}",
            f"{statistics.median(ranked):.3f}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
        ]


class Reference:
    """A step of the authors' code, in a process of its own."""

    def __init__(self, *words: Any) -> None:
        command = [sys.executable, reference_mask2former.__file__, *map(str, words)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __call__(self, size: int) -> tuple[float, float]:
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the reference ended; its error is above")
        loss, mib = map(float, answer.split())
        return loss, mib


def our_step(name: str, weights: str, args: Any) -> Callable[[int], tuple[float, float]]:
    """A step of a config's model that begins with these weights, as far as it has them."""
    cfg = get_config(name, ["MODEL.DEVICE", args.device])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    Checkpointer(model).load(weights)
    optimizer = Trainer.build_optimizer(cfg, model)
    return step_of(model, optimizer, optimizer.step, args.batch, args.amp)


def against_reference(args: Any) -> Iterator[list[str]]:
    amp = args.amp and args.device == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder, "weights.pth"))
        words = args.reference, weights, args.batch, torch.get_num_threads(), args.device, amp
        ways = {"reference": Reference(*words)}
        first = {"reference": ways["reference"](min(args.sizes))[0]}
        for way, name in (("ours", OURS), ("ranked", f"{OURS}_rankseg")):
            ways[way] = our_step(name, weights, args)
            first[way] = ways[way](min(args.sizes))[0]
    if not abs(first["ours"] - first["reference"]) <= TOLERANCE * first["reference"]:
        sys.exit(f"the losses differ: {first}")
    for size in args.sizes:
        seconds, found = time_in_turn(
            ways, args.repeats, arguments=lambda number, size=size: (size,), warm_up=True
        )
        low, middle, high = statistics.quantiles(ratios(seconds["ranked"], seconds["ours"]), n=4)
        row = [
            f"{size}²",
            *(f"{statistics.median(seconds[name]):.2f}" for name in ways),
            times_faster(seconds["reference"], seconds["ours"], 2),
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
        ]
        if args.device == "cuda":
            mib = {name: mib for name, (_, mib) in found.items()}
            row += [f"{mib['reference']:,.0f}", f"{mib['ours'] / mib['reference']:.2f}"]
        yield row


def main() -> None:
    parser = make_parser(__doc__, repeats=15)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="with a ranking")
    parser.add_argument("--reference", metavar="PATH", help="a checkout of Mask2Former")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="of --reference")
    parser.add_argument("--batch", type=int, default=2, help="of --reference")
    parser.add_argument("--device", default="cpu", help="of --reference")
    parser.add_argument("--amp", action="store_true", help="with --reference: bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys")
    args = parser.parse_args()
    if bool(args.configs) == bool(args.reference):
        parser.error("give configs, or --reference PATH")
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    if args.reference:
        require_detectron2()
        if not Path(args.reference, needed := reference_mask2former.CONFIG).is_file():
            sys.exit(f"{args.reference} is no checkout of Mask2Former: it lacks {needed}")
        types = {(True, "cuda"): "bfloat16", (True, "cpu"): "ours in bfloat16, theirs in float32"}
        write_heading(
            "Training step against the authors' Mask2Former",
            f"""Mask2Former R50, {CLASSES} classes, {args.batch} images with {OBJECTS} objects each,
            {types.get((args.amp, args.device), "float32")}, the same weights; seconds of a step
            (forward, backward, update), medians of {args.repeats} rounds in turn; ratios: the
            median, and the extremes or quartiles.""",
            args.device,
        )
        heads = ["image", "reference", "rankseg_d2", "with RankSeg", "times faster"]
        heads.append("RankSeg / plain")
        if args.device == "cuda":
            heads += ["reference, MiB above the weights", "rankseg_d2 / reference"]
        write_table(heads, against_reference(args))
        return
    keys = [word for pair in args.set for word in pair.split("=", 1)]
    write_heading(
        "Training step with RankSeg",
        f"""κ at the end of its schedule; processor seconds of a step, data not counted, medians of
        {args.repeats} rounds in turn; the ratio's median, and its quartiles.""",
    )
    heads = ["config", "categories", "κ", "without", "with RankSeg", "with / without"]
    write_table(heads, rows(args.configs, keys, args.repeats))


if __name__ == "__main__":
    end_in_a_sentence(os.path.basename(__file__), main)
