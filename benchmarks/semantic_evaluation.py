"""Time of semantic evaluation per image, against detectron2's SemSegEvaluator without its json.

    python benchmarks/semantic_evaluation.py [--images 9]

Needs the real detectron2. The json of RLE masks, which its evaluator always makes, is switched off
by an empty `encode_json_sem_seg`; everything else is as it is. Each image's predictions are made
before the clock starts, then all evaluators process them in turn; both must find the same numbers.
"""

import argparse
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import rankseg_d2

# isort: split
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rankseg_d2.evaluation import SemanticEvaluator

HEIGHT, WIDTH = 512, 683
FEW, MANY = 150, 1284  # 8- and 16-bit labels
FREE = "labels, as if its argmax were free"


class KnownLabels:
    """Stands for score maps whose argmax costs nothing."""

    def __init__(self, labels):
        self.labels = labels

    def argmax(self, dim):
        return self.labels


def make_scene(number, classes):
    """Smooth scores (C, H, W) and labels (H, W) like them: about 15 categories in patches."""
    random = torch.Generator().manual_seed(number)
    coarse = torch.randn(1, 15, 12, 16, generator=random)
    patches = F.interpolate(coarse, (48, 64), mode="bicubic")
    truth = F.interpolate(patches, (HEIGHT, WIDTH), mode="bilinear")[0].argmax(0)
    noisy = patches + 0.4 * torch.randn(patches.shape, generator=random)
    scores = F.interpolate(noisy, (HEIGHT, WIDTH), mode="bilinear")[0]
    ids = torch.randperm(classes, generator=random)[:15]
    truth = ids[truth]
    truth[:20] = void(classes)
    return scores, ids, truth


def void(classes):
    return 255 if classes < 255 else 65535


def full_scores(scores, ids, classes):
    full = torch.rand(classes, HEIGHT, WIDTH) - 4
    return full.index_copy_(0, ids, scores)


def register(name, files, classes):
    records = [{"file_name": file, "sem_seg_file_name": file} for file in files]
    DatasetCatalog.register(name, lambda: records)
    names = [f"class {i}" for i in range(classes)]
    MetadataCatalog.get(name).set(stuff_classes=names, ignore_label=void(classes))


def detectron2_evaluator(name, boundary):
    from detectron2.evaluation import SemSegEvaluator

    class WithoutJson(SemSegEvaluator):
        def encode_json_sem_seg(self, sem_seg, input_file_name):
            return []

    evaluator = WithoutJson(name, distributed=False)
    evaluator._compute_boundary_iou &= boundary
    return evaluator


def measure(folder, classes, images, with_scores):
    """{what: seconds per image}, and the results of each."""
    scenes = [make_scene(i, classes) for i in range(images)]
    files = [os.path.join(folder, f"{classes}_{i}.png") for i in range(images)]
    for file, (_, _, truth) in zip(files, scenes, strict=True):
        Image.fromarray(truth.numpy().astype(np.uint8 if classes < 255 else np.uint16)).save(file)
    name = f"semantic_evaluation_{classes}"
    register(name, files, classes)
    evaluators = {
        "theirs, labels, no boundary IoU": detectron2_evaluator(name, False),
        "theirs, labels": detectron2_evaluator(name, True),
        "ours, labels": SemanticEvaluator(name),
    }
    if with_scores:
        evaluators["theirs, scores"] = detectron2_evaluator(name, True)
        evaluators["ours, scores"] = SemanticEvaluator(name)
    seconds = {what: [] for what in evaluators}
    for evaluator in evaluators.values():
        evaluator.reset()
    for file, (scores, ids, _) in zip(files, scenes, strict=True):
        labels = ids[scores.argmax(0)]
        full = full_scores(scores, ids, classes) if with_scores else None
        for what, evaluator in evaluators.items():
            if "scores" in what:
                output = {"sem_seg": full}
            elif "ours" in what:
                output = {"sem_seg_labels": labels}
            else:
                output = {"sem_seg": KnownLabels(labels)}
            start = time.perf_counter()
            evaluator.process([{"file_name": file}], [output])
            seconds[what].append(time.perf_counter() - start)
    results = [evaluator.evaluate()["sem_seg"] for evaluator in evaluators.values()]
    for result in results:
        for metric in ("mIoU", "fwIoU", "mACC", "pACC"):
            if abs(result[metric] - results[0][metric]) > 1e-9:
                sys.exit(f"{metric} differs: {result[metric]} and {results[0][metric]}")
    return seconds


def ratio(seconds, slow, fast="ours, labels"):
    """The median of the pairs, the lowest and the highest."""
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})"


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=9)
    args = parser.parse_args()
    if rankseg_d2.engine_name() != "detectron2":
        sys.exit("this compares with the real detectron2, which is not installed here")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    load = os.getloadavg()[0]  # other work on the machine, before ours
    with tempfile.TemporaryDirectory() as folder:
        few = measure(folder, FEW, args.images, with_scores=True)
        many = measure(folder, MANY, args.images, with_scores=False)
    rows = [
        (FEW, "detectron2", "score maps (`sem_seg`), all that it can take", few, "theirs, scores"),
        (FEW, "detectron2", FREE, few, "theirs, labels"),
        (FEW, "detectron2, no boundary IoU", FREE, few, "theirs, labels, no boundary IoU"),
        (FEW, "rankseg_d2", "`sem_seg_labels`, which our models return", few, "ours, labels"),
        (FEW, "rankseg_d2", "score maps (`sem_seg`)", few, "ours, scores"),
        (MANY, "detectron2", FREE, many, "theirs, labels"),
        (MANY, "rankseg_d2", "`sem_seg_labels`", many, "ours, labels"),
    ]
    table = "\n".join(
        f"| {classes} | {who} | {given} | {1000 * statistics.median(seconds[what]):.1f} |"
        for classes, who, given, seconds, what in rows
    )
    sys.stdout.write(
        f"""# Semantic evaluation

`process` of one image of {WIDTH} x {HEIGHT}, label PNG of 8 ({MANY} classes: 16) bits in the disk
cache, median of {args.images} images, evaluators in turn; mIoU, fwIoU, mACC and pACC are equal to
1e-9. detectron2's SemSegEvaluator runs without its json of RLE masks.
{processor()}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, NumPy
{np.__version__}, Python {platform.python_version()}; load average {load:.1f} from other work \
before the start.

| classes | evaluator | is given | milliseconds |
|---|---|---|---|
{table}

| times faster, median of pairs (lowest, highest) | |
|---|---|
| {FEW} classes, each given what our models return | {ratio(few, "theirs, scores")} |
| {FEW} classes, both from score maps | {ratio(few, "theirs, scores", "ours, scores")} |
| {FEW} classes, both from labels | {ratio(few, "theirs, labels")} |
| the same, no boundary IoU | {ratio(few, "theirs, labels, no boundary IoU")} |
| {MANY} classes, both from labels | {ratio(many, "theirs, labels")} |
"""
    )


if __name__ == "__main__":
    main()
