"""Time of semantic evaluation per image, against detectron2's SemSegEvaluator without its json.

    python benchmarks/semantic_evaluation.py [--images 9]

Needs the real detectron2. The json of RLE masks, which its evaluator always makes, is switched off
by an empty `encode_json_sem_seg`; everything else is as it is. Each image's predictions are made
before the clock starts, then all evaluators process them in turn; both must find the same numbers.
"""

import logging
import os
import statistics
import tempfile
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    check_equal,
    make_parser,
    require_detectron2,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)
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
    true_labels = F.interpolate(patches, (HEIGHT, WIDTH), mode="bilinear")[0].argmax(0)
    noisy = patches + 0.4 * torch.randn(patches.shape, generator=random)
    scores = F.interpolate(noisy, (HEIGHT, WIDTH), mode="bilinear")[0]
    ids = torch.randperm(classes, generator=random)[:15]
    true_labels = ids[true_labels]
    true_labels[:20] = ignore_label(classes)
    return scores, ids, true_labels


def ignore_label(classes):
    return 255 if classes < 255 else 65535


def full_scores(scores, ids, classes):
    full = torch.rand(classes, HEIGHT, WIDTH) - 4
    return full.index_copy_(0, ids, scores)


def register(name, files, label_maps, classes):
    """A data set of label maps, written to the files."""
    for file, labels in zip(files, label_maps, strict=True):
        pixels = labels.numpy().astype(np.uint8 if classes < 255 else np.uint16)
        Image.fromarray(pixels).save(file)
    records = [{"file_name": file, "sem_seg_file_name": file} for file in files]
    DatasetCatalog.register(name, lambda: records)
    names = [f"class {i}" for i in range(classes)]
    MetadataCatalog.get(name).set(stuff_classes=names, ignore_label=ignore_label(classes))


def detectron2_evaluator(name, boundary):
    from detectron2.evaluation import SemSegEvaluator

    class WithoutJson(SemSegEvaluator):
        def encode_json_sem_seg(self, sem_seg, input_file_name):
            return []

    evaluator = WithoutJson(name, distributed=False)
    evaluator._compute_boundary_iou &= boundary
    return evaluator


def run(evaluator, form, file, outputs):
    evaluator.process([{"file_name": file}], [outputs[form]])
    if isinstance(evaluator, SemanticEvaluator):
        evaluator.background.finish()  # its threads would work beside the model


def measure(folder, classes, images, with_scores):
    """{what: seconds of each image}."""
    name = f"semantic_evaluation_{classes}"
    scenes = [make_scene(i, classes) for i in range(images)]
    files = [os.path.join(folder, f"{classes}_{i}.png") for i in range(images)]
    register(name, files, [true_labels for _, _, true_labels in scenes], classes)
    evaluators = {  # and in which form they get predictions
        "theirs, labels, no boundary IoU": (detectron2_evaluator(name, False), "known labels"),
        "theirs, labels": (detectron2_evaluator(name, True), "known labels"),
        "ours, labels": (SemanticEvaluator(name), "labels"),
    }
    if with_scores:
        evaluators["theirs, scores"] = detectron2_evaluator(name, True), "scores"
        evaluators["ours, scores"] = SemanticEvaluator(name), "scores"

    @lru_cache(1)
    def file_and_outputs(number):
        scores, ids, _ = scenes[number]
        labels = ids[scores.argmax(0)]
        outputs = {
            "known labels": {"sem_seg": KnownLabels(labels)},
            "labels": {"sem_seg_labels": labels},
        }
        if with_scores:
            outputs["scores"] = {"sem_seg": full_scores(scores, ids, classes)}
        return files[number], outputs

    for evaluator, _ in evaluators.values():
        evaluator.reset()
    runs = {what: partial(run, *pair) for what, pair in evaluators.items()}
    seconds, _ = time_in_turn(runs, images, arguments=file_and_outputs)
    first, *others = [evaluator.evaluate()["sem_seg"] for evaluator, _ in evaluators.values()]
    for result in others:
        check_equal(result, {key: first[key] for key in ("mIoU", "fwIoU", "mACC", "pACC")}, 1e-9)
    return seconds


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=9)
    args = parser.parse_args()
    require_detectron2()
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        few = measure(folder, FEW, args.images, with_scores=True)
        many = measure(folder, MANY, args.images, with_scores=False)
    write_heading(
        "Semantic evaluation",
        f"""`process` of one image of {WIDTH} x {HEIGHT}, label PNG of 8 ({MANY} classes: 16) bits
        in the disk cache, median of {args.images} images, evaluators in turn; mIoU, fwIoU, mACC
        and pACC are equal to 1e-9. detectron2's SemSegEvaluator runs without its json of RLE
        masks.""",
        NumPy=np.__version__,
    )
    rows = [
        (FEW, "detectron2", "score maps (`sem_seg`), all that it can take", few, "theirs, scores"),
        (FEW, "detectron2", FREE, few, "theirs, labels"),
        (FEW, "detectron2, no boundary IoU", FREE, few, "theirs, labels, no boundary IoU"),
        (FEW, "rankseg_d2", "`sem_seg_labels`, which our models return", few, "ours, labels"),
        (FEW, "rankseg_d2", "score maps (`sem_seg`)", few, "ours, scores"),
        (MANY, "detectron2", FREE, many, "theirs, labels"),
        (MANY, "rankseg_d2", "`sem_seg_labels`", many, "ours, labels"),
    ]
    write_table(
        ["classes", "evaluator", "is given", "milliseconds"],
        (
            [str(classes), evaluator, given, f"{1000 * statistics.median(seconds[what]):.1f}"]
            for classes, evaluator, given, seconds, what in rows
        ),
    )
    write("\n")
    pairs = [
        (f"{FEW} classes, each given what our models return", few, "theirs, scores"),
        (f"{FEW} classes, both from score maps", few, "theirs, scores", "ours, scores"),
        (f"{FEW} classes, both from labels", few, "theirs, labels"),
        ("the same, no boundary IoU", few, "theirs, labels, no boundary IoU"),
        (f"{MANY} classes, both from labels", many, "theirs, labels"),
    ]
    write_table(
        ["", "times faster, median of pairs (lowest, highest)"],
        ([title, ratio(*pair)] for title, *pair in pairs),
    )


def ratio(seconds, slow, fast="ours, labels"):
    return times_faster(seconds[slow], seconds[fast])


if __name__ == "__main__":
    main()
