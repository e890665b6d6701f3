"""What categories cost: RankSeg with 150, 1,284 and 10,000 of them, of which 50 are kept.

    python benchmarks/large_vocabulary.py [--repeats 5] [--size 512] [--classes 150 1284 10000]

Mask2Former R50 and the multi-label head `group`, from the training step to the checkpoint. Times
are of the processor, of one thread, all numbers of categories in turn in one process. Memory: the
peak of a process of its own, which has the model, and in training its optimizer too.
"""

import logging
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import (
    in_own_process,
    make_model,
    make_parser,
    peak_mib,
    ratios,
    time_in_turn,
    write,
    write_heading,
    write_table,
)
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from PIL import Image
from rankseg_latency import MASK2FORMER, RANKSEG

from rankseg_d2.engine import Checkpointer
from rankseg_d2.evaluation import SemanticEvaluator
from rankseg_d2.modeling.results import Sizes

PRESENT = 10  # categories in an image
IMAGES = 4  # that are evaluated
Ways = dict[str, Callable[[], object]]


def build(count: int, head: str = "group") -> torch.nn.Module:
    torch.manual_seed(0)
    keys = {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": count, "MODEL.RANKSEG.HEAD": head}
    keys |= {"MODEL.RANKSEG.KEEP_TRUE": True}  # as many targets, whatever a fresh head keeps
    return make_model(MASK2FORMER | RANKSEG | keys)


def make_sample(count: int, size: int) -> dict:
    """An image of a few squares of random categories."""
    random = torch.Generator().manual_seed(0)
    cells, ids = _squares(count, size, random)
    masks = torch.stack([cells == number for number in range(PRESENT)])
    objects = Instances((size, size), gt_classes=ids, gt_masks=masks)
    image = torch.randint(256, (3, size, size), generator=random, dtype=torch.uint8)
    return {"image": image, "instances": objects, "height": size, "width": size}


def _squares(count: int, size: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Which square each pixel (H, W) has, and the category of each of the squares."""
    cells = torch.randint(PRESENT, (8, 8), generator=random)
    cells = cells.repeat_interleave(size // 8, 0).repeat_interleave(size // 8, 1)
    return cells, torch.randperm(count, generator=random)[:PRESENT]


def make_step(count: int, size: int) -> Callable[[], None]:
    """A function that trains on one image."""
    model, sample = build(count).train(), make_sample(count, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        losses = model([sample])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def make_predict(count: int, size: int, head: str = "group") -> Callable[[], None]:
    model, sample = build(count, head), make_sample(count, size)

    def predict() -> None:
        with torch.no_grad():
            model([sample])

    return predict


def make_ranking(count: int, size: int) -> Callable[[], None]:
    """The multi-label head, the ranking, and class logits of the kept categories."""
    model = build(count)
    with torch.no_grad():
        outputs = model.run_network(model.preprocess([make_sample(count, size)]))

    def decide() -> None:
        with torch.no_grad():
            model.score(outputs)
            model.decide(outputs)

    return decide


def make_result(count: int, size: int) -> Callable[[], None]:
    """From class logits and masks to a label map."""
    model, sizes = build(count), Sizes((size, size), (size, size), (size, size))
    with torch.no_grad():
        outputs = model.decide(model.run_network(model.preprocess([make_sample(count, size)])))

    def result() -> None:
        with torch.no_grad():
            model.result(outputs, 0, sizes)

    return result


def make_evaluation(count: int, size: int, folder: str) -> Callable[[], None]:
    """Semantic evaluation of a few images, from the predicted maps to the metrics."""
    name, random = f"large_vocabulary_{count}", torch.Generator().manual_seed(1)
    records, outputs = [], []
    for number in range(IMAGES):
        cells, ids = _squares(count, size, random)
        file = os.path.join(folder, f"{count}_{number}.png")
        Image.fromarray(ids[cells].numpy().astype(np.uint16)).save(file)
        records.append({"file_name": file, "sem_seg_file_name": file})
        outputs.append({"sem_seg_labels": ids[cells.roll(5, 1)]})
    DatasetCatalog.register(name, lambda: records)
    names = [f"class {i}" for i in range(count)]
    MetadataCatalog.get(name).set(stuff_classes=names, ignore_label=65535)
    evaluator = SemanticEvaluator(name, folder)

    def evaluate() -> None:
        evaluator.reset()
        evaluator.process(records, outputs)
        evaluator.evaluate()

    return evaluate


def make_load(count: int, folder: str) -> Callable[[], None]:
    """Load a checkpoint whose classes have another order, which are matched by name."""
    model, names = build(count), [f"class {i}" for i in range(count)]
    folder = os.path.join(folder, str(count))
    Checkpointer(model, folder, class_names=names[::-1]).save("model")
    checkpointer = Checkpointer(model, class_names=names)
    return partial(checkpointer.load, os.path.join(folder, "model.pth"))


def times(make: Callable, counts: list[int], repeats: int, *more: object) -> list[list[float]]:
    """Seconds of the processor, of each number of categories in each round."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        more = [folder if word is Path else word for word in more]
        ways = {str(count): make(count, *more) for count in counts}
        clock = time.process_time
        return list(time_in_turn(ways, repeats, clock=clock, warm_up=True)[0].values())


def peak(make: Callable, count: int, size: int) -> float:
    """MiB of the process that has done it once."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    make(count, size)()
    return peak_mib()


def row(name: str, values: list[list[float]], digits: int = 3) -> list[str]:
    """A line of the table: medians, and the medians of the rounds' ratios to the first."""
    cells = [f"{statistics.median(value):.{digits}f}" for value in values]
    shares = [f"{statistics.median(ratios(value, values[0])):.2f}" for value in values[1:]]
    return [name, *cells, *shares]


def table_rows(args: Namespace):
    counts, size, repeats = args.classes, args.size, args.repeats
    measured = {
        "an image, to its label map": (make_predict, repeats, size),
        "of this, multi-label head, ranking, class logits": (make_ranking, repeats, size),
        "of this, logits and masks to the label map": (make_result, repeats, size),
        "an image with the head `encoder`": (make_predict, 1, size, "encoder"),
        "a training step": (make_step, repeats, size),
        f"semantic evaluation of {IMAGES} images, and its files": (make_evaluation, 3, size, Path),
        "loading a checkpoint, classes matched by name": (make_load, 3, Path),
    }
    for name, (make, number, *more) in measured.items():
        yield row(f"{name}: seconds", in_own_process(times, make, counts, number, *more))
    for name, make in (("an image", make_predict), ("a training step", make_step)):
        peaks = [[in_own_process(peak, make, count, size)] for count in counts]
        yield row(f"{name}: peak MiB", peaks, 0)


def main():
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--classes", type=int, nargs="+", default=[150, 1284, 10_000])
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in the processes that measure
    write_heading(
        "Large vocabularies",
        f"""Mask2Former R50 with RankSeg, the multi-label head group and κ =
        {RANKSEG["MODEL.RANKSEG.TOPK"]}, {args.size} x {args.size}, batch 1, float32, AdamW.
        Processor seconds, medians of {args.repeats} rounds in turn (3 of the evaluation and of
        loading, 1 of the encoder); on the right the medians of the rounds' ratios.""",
    )
    heads = [f"{count:,}" for count in args.classes]
    others = [f"{count} / {heads[0]}" for count in heads[1:]]
    write_table(["categories", *heads, *others], table_rows(args))
    write(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.\n")


if __name__ == "__main__":
    main()
