"""Time and peak memory of a training step of Segmenter with many classes: RankSeg and its baseline.

    python benchmarks/pixel_training.py [--repeats 5] [--size 512] [--classes 1284] [--kappa 100]

Times: both models in turn in one process; a step is losses, gradients and the optimizer's step.
Memory: each model in a process of its own, the peak above the model, its gradients and optimizer.
"""

import os
import statistics
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch
from common import (
    in_own_process,
    make_parser,
    peak_mib,
    resident_mib,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)
from detectron2.modeling import build_model

from rankseg_d2.config import get_config

CONFIG = "coco_lvis/semantic/segmenter_vit_b"
MODELS = {"baseline": "", "RankSeg": "_rankseg"}
SIZES = {"ti": (192, 3), "s": (384, 6), "b": (768, 12)}  # of the ViT: width, heads
PRESENT = 10  # classes in an image


def make_step(name: str, args: Namespace) -> Callable[[int], None]:
    """A function that trains on one batch of images with this side."""
    width, heads = SIZES[args.vit]
    cfg = get_config(CONFIG + MODELS[name], ["MODEL.DEVICE=cpu", "MODEL.WEIGHTS", ""])
    cfg.MODEL.VIT.EMBED_DIM, cfg.MODEL.VIT.NUM_HEADS = width, heads
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = args.classes
    cfg.MODEL.RANKSEG.TOPK = min(args.kappa, args.classes)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step(size: int) -> None:
        losses = model(samples(size, args))
        optimizer.zero_grad(set_to_none=False)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def samples(size: int, args: Namespace) -> list[dict]:
    """Images of squares of a few classes."""
    random = torch.Generator().manual_seed(0)
    cells = size // 16
    found = []
    for _ in range(args.batch):
        classes = torch.randperm(args.classes, generator=random)[:PRESENT]
        labels = classes[torch.randint(len(classes), (cells, cells), generator=random)]
        labels = labels.repeat_interleave(16, 0).repeat_interleave(16, 1)
        image = torch.randint(256, (3, *labels.shape), generator=random, dtype=torch.uint8)
        found.append({"image": image, "sem_seg": labels})
    return found


def times(args: Namespace) -> dict[str, list[float]]:
    """Seconds of a step of each model, in turn."""
    torch.set_num_threads(1)
    steps = {name: partial(make_step(name, args), args.size) for name in MODELS}
    return time_in_turn(steps, args.repeats, warm_up=True)[0]


def peak_memory(name: str, args: Namespace) -> float:
    """MiB by which the process grows in a step."""
    torch.set_num_threads(1)
    step = make_step(name, args)
    step(32)  # what exists after the first step, and what libraries load, does not count
    before = resident_mib()
    step(args.size)
    return peak_mib() - before


def main():
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--vit", choices=SIZES, default="s")
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--batch", type=int, default=1, help="images in a step")
    parser.add_argument("--classes", type=int, default=1284)
    parser.add_argument("--kappa", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in the processes that measure
    seconds = in_own_process(times, args)
    peaks = {name: in_own_process(peak_memory, name, args) for name in MODELS}
    write_heading(
        "A training step with many classes",
        f"""Segmenter ViT-{args.vit.title()}/16 with the mask decoder, {args.classes:,} classes,
        RankSeg with κ = {args.kappa}, images of {args.size}², {args.batch} in a batch, float32,
        SGD. Times are medians of {args.repeats} rounds in turn; memory is the peak above model,
        gradients and momentum.""",
    )
    base, _ = MODELS
    write_table(
        ["", "seconds", "peak MiB", "times as fast, median of rounds", "of the memory"],
        (
            [
                name,
                f"{statistics.median(seconds[name]):.2f}",
                f"{peaks[name]:.0f}",
                times_faster(seconds[base], seconds[name]),
                f"1/{peaks[base] / peaks[name]:.1f}",
            ]
            for name in MODELS
        ),
    )
    write(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.\n")


if __name__ == "__main__":
    main()
