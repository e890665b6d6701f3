"""Time of YouTube-VIS' AP, against its public script, on the same results.

    python benchmarks/ytvis_evaluation.py --script FOLDER [--videos 24] [--repeats 5]

FOLDER holds ytvos.py and ytvoseval.py, as of github.com/facebookresearch/Mask2Former
(mask2former_video/data_video/datasets/ytvis_api), which is youtubevos/cocoapi for new Pythons. Two
things are fixed to run it: `np.float`, which NumPy has dropped, and the import of matplotlib, which
it does not need. Both have read the ground truth's json and get the results in memory, in turn; all
metrics must be equal to 1e-9. Ours runs with and without the compiled operation. Seconds are of CPU
time; with OMP_NUM_THREADS=1 the operation has one thread, like all else.
"""

import contextlib
import copy
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from common import (
    check_equal,
    load_module,
    make_parser,
    time_in_turn,
    times_faster,
    write_heading,
    write_table,
)
from detectron2.data import MetadataCatalog
from pycocotools import mask as mask_util

from rankseg_d2.evaluation import VideoInstanceEvaluator, video_overlap
from rankseg_d2.ops.rle import why_not

HEIGHT, WIDTH, CLASSES = 720, 1280, 40
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")


class Blob:
    """An object that moves, with a wavy outline; some have a hole."""

    def __init__(self, rng):
        self.center = rng.uniform([0.2 * WIDTH, 0.2 * HEIGHT], [0.8 * WIDTH, 0.8 * HEIGHT])
        self.step = rng.uniform(-6, 6, 2)
        self.radius = rng.uniform(20, 200)
        self.has_hole = rng.random() < 0.3
        self.waves = rng.normal(size=6) * [0.2, 0.2, 0.1, 0.1, 0.05, 0.05]
        self.life = sorted(rng.choice(20, 2, replace=False) / 20)

    def like(self, rng, noise):
        other = copy.deepcopy(self)
        other.center = other.center + rng.normal(size=2) * noise * self.radius
        other.radius *= np.exp(rng.normal() * noise)
        other.waves = other.waves + rng.normal(size=6) * noise
        return other

    def masks(self, length):
        return [self.mask(t) if self.is_present(t, length) else None for t in range(length)]

    def is_present(self, frame, length):
        return not self.life[0] < frame / length < self.life[0] + 0.15

    def mask(self, frame):
        angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        radius = self.radius * (
            1 + sum(w * np.sin((k + 2) * angle + 0.1 * frame) for k, w in enumerate(self.waves))
        )
        outline = np.stack([np.cos(angle), 0.7 * np.sin(angle)], 1) * radius[:, None]
        middle = self.center + frame * self.step
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(mask, [np.int32(outline + middle)], 1)
        if self.has_hole:
            cv2.fillPoly(mask, [np.int32(0.2 * outline + middle)], 0)
        return mask_util.encode(np.asfortranarray(mask))


def make_video(rng, queries, rows):
    """True objects (category, masks) and detections (score, category, masks) of a video.

    As in Mask2Former, detections are the best pairs of query and category: several share masks.
    """
    length = int(rng.integers(20, 37))
    objects = [(int(rng.integers(CLASSES)), Blob(rng)) for _ in range(rng.integers(1, 5))]
    if len(objects) > 1 and rng.random() < 0.6:  # most videos show several of one kind
        objects = [(objects[0][0], blob) for _, blob in objects]
    found = []
    for i in range(queries):
        category, blob = objects[i % len(objects)]
        blob = blob.like(rng, 0.05) if i < len(objects) else blob.like(rng, 0.5)
        found.append((category, blob.masks(length)))
    scores = np.sort(rng.random(rows))[::-1].tolist()
    detections = []
    for i, score in enumerate(scores):
        category, masks = found[i % queries]
        detections.append((score, category if i < queries else int(rng.integers(CLASSES)), masks))
    return length, [(category, blob.masks(length)) for category, blob in objects], detections


def make_content(videos):
    """The json of YouTube-VIS: masks as lists of run lengths."""
    content = {"videos": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)]
    for number, (length, objects, _) in enumerate(videos, 1):
        size = {"height": HEIGHT, "width": WIDTH, "length": length, "file_names": []}
        content["videos"].append({"id": number} | size)
        for category, masks in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "video_id": number,
                    "category_id": category + 1,
                    "iscrowd": 0,
                    "segmentations": [rle and run_lengths(rle) for rle in masks],
                    "areas": [rle and int(mask_util.area(rle)) for rle in masks],
                }
            )
    return content


def make_predictions(videos):
    """Detections as our evaluator takes them, and as the script does."""
    outputs, results = [], []
    for number, (_, _, detections) in enumerate(videos, 1):
        scores, classes, masks = map(list, zip(*detections, strict=True))
        outputs.append({"pred_scores": scores, "pred_labels": classes, "pred_masks": masks})
        results += [
            {"video_id": number, "category_id": category + 1, "score": score, "segmentations": m}
            for score, category, m in detections
        ]
    return outputs, results


def run_lengths(rle):
    mask = mask_util.decode(rle).ravel(order="F")
    ends = np.append(np.flatnonzero(mask[1:] != mask[:-1]) + 1, mask.size)
    counts = np.diff(ends, prepend=0).tolist()
    return {"size": list(rle["size"]), "counts": [0, *counts] if mask[0] else counts}


def load_script(folder):
    np.float = float
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.collections", "matplotlib.patches"):
        module = sys.modules[name] = ModuleType(name)
        module.PatchCollection = module.Polygon = None
    ytvos, ytvoseval = (load_module(Path(folder, f"{name}.py")) for name in ("ytvos", "ytvoseval"))
    return ytvos.YTVOS, ytvoseval.YTVOSeval


def by_script(evaluation, ground_truth, rows):
    with contextlib.redirect_stdout(io.StringIO()):
        run = evaluation(ground_truth, ground_truth.loadRes(rows))
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: 100 * run.stats[i] for i, name in enumerate(METRICS)}


def by_us(evaluator, samples, outputs, reason, *_):
    """`reason` says why the compiled operation cannot run."""
    video_overlap.why_not = reason
    evaluator.reset()
    for sample, output in zip(samples, outputs, strict=True):
        evaluator.process([sample], [output])
    return evaluator.evaluate()["segm"]


def measure(folder, script, count, repeats, queries, rows):
    """Seconds of the script and of ours, AP, and the mean size of a mask."""
    rng = np.random.default_rng(0)
    videos = [make_video(rng, queries, rows) for _ in range(count)]
    name = f"ytvis_evaluation_{rows}"
    json_file = os.path.join(folder, f"{name}.json")
    Path(json_file).write_text(json.dumps(make_content(videos)))
    ids = {i + 1: i for i in range(CLASSES)}
    MetadataCatalog.get(name).set(json_file=json_file, thing_dataset_id_to_contiguous_id=ids)
    samples = [{"video_id": number} for number in range(1, count + 1)]
    outputs, results = make_predictions(videos)
    api, evaluation = script
    evaluator = VideoInstanceEvaluator(name)
    evaluator.ground_truth  # noqa: B018  (read the json)
    ours = partial(by_us, evaluator, samples, outputs)
    runs = {
        "public script": partial(by_script, evaluation),
        "rankseg_d2, by pycocotools": partial(ours, lambda: "not now"),
    }
    if why_not() is None:
        runs["rankseg_d2, compiled operation"] = partial(ours, why_not)

    def for_script(_):
        """Ground truth and results, both of which the script changes."""
        with contextlib.redirect_stdout(io.StringIO()):
            ground_truth = api(json_file)
        return ground_truth, [x | {"segmentations": list(x["segmentations"])} for x in results]

    seconds, found = time_in_turn(runs, repeats, arguments=for_script, clock=time.process_time)
    for metrics in found.values():
        check_equal(metrics, found["public script"], 1e-9)
    masks = [rle["counts"] for row in results for rle in row["segmentations"] if rle]
    return seconds, found["public script"]["AP"], statistics.mean(map(len, masks))


def table_rows(folder, script, videos, repeats):
    for queries, rows in ((6, 10), (30, 50)):
        seconds, ap, size = measure(folder, script, videos, repeats, queries, rows)
        for name, values in seconds.items():
            yield [
                f"{rows} of {queries} queries",
                f"{ap:.1f}",
                f"{size:.0f}",
                name,
                f"{1000 * statistics.median(values) / videos:.1f}",
                times_faster(seconds["public script"], values),
            ]


def main():
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--script", required=True, help="folder of ytvos.py and ytvoseval.py")
    parser.add_argument("--videos", type=int, default=24)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    script = load_script(args.script)
    write_heading(
        "YouTube-VIS evaluation",
        f"""{args.videos} videos of 20 to 36 frames, {WIDTH} x {HEIGHT}, of 1 to 4 objects;
        {CLASSES} classes; ground truth and results in memory; CPU time, OMP_NUM_THREADS
        {os.environ.get("OMP_NUM_THREADS", "not set")}, median of {args.repeats}, in turn. All
        metrics are equal to 1e-9.""",
        pycocotools=version("pycocotools"),
        NumPy=np.__version__,
    )
    heads = ["rows per video", "AP", "bytes per RLE", "", "milliseconds per video", "times faster"]
    with tempfile.TemporaryDirectory() as folder:
        write_table(heads, table_rows(folder, script, args.videos, args.repeats))


if __name__ == "__main__":
    main()
