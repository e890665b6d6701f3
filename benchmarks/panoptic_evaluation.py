"""Time of panoptic evaluation, against detectron2's COCOPanopticEvaluator with panopticapi.

    python benchmarks/panoptic_evaluation.py [--images 200] [--repeats 3]

Needs the real detectron2 and panopticapi. Both get the same predictions in memory, process them
image by image and evaluate, in turn; panopticapi uses all cores, we run in one process. PQ, SQ and
RQ must be equal to 1e-9.
"""

import copy
import json
import logging
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
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

from rankseg_d2.data.classes import load_classes
from rankseg_d2.evaluation import PanopticEvaluator

NAME, HEIGHT, WIDTH = "panoptic_evaluation", 480, 640
CLASSES = load_classes("coco_panoptic_133")


def make_scene(rng):
    """Class (contiguous) and crowd flag of each segment id, and the ids (H, W), 0 for void."""
    ids, segments = np.zeros((HEIGHT, WIDTH), np.int32), {}
    fields = rng.normal(size=(5, 8, 10)).astype(np.float32)
    fields = [cv2.resize(x, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for x in fields]
    kinds = np.argmax(fields, 0)  # 0 is void
    stuff = rng.choice(np.arange(80, 133), 4, replace=False).tolist()
    numbers = iter(rng.choice(np.arange(1, 1 << 24), 40, replace=False).tolist())
    for kind, category in enumerate(stuff, 1):
        if (kinds == kind).any():
            segments[number := next(numbers)] = category, 0
            ids[kinds == kind] = number
    for _ in range(rng.integers(3, 20)):
        number = next(numbers)
        center = rng.integers(0, [WIDTH, HEIGHT]).tolist()
        axes, angle = rng.integers(8, 90, 2).tolist(), float(rng.integers(180))
        mask = cv2.ellipse(np.zeros(ids.shape, np.uint8), center, axes, angle, 0, 360, 1, -1) > 0
        mask &= fields[0] + 0.5 * np.sin(np.arange(WIDTH) / 9) > -0.8  # ragged edges
        ids[mask] = number
        segments[number] = int(rng.integers(80)), int(rng.random() < 0.05)
    return {number: what for number, what in segments.items() if (ids == number).any()}, ids


def predict(rng, segments, ids):
    """A prediction for a scene: edges move, and some segments are missed or of another class."""
    found, infos = np.zeros_like(ids), []
    for number, (old, (category, _)) in enumerate(segments.items(), 1):
        if rng.random() < 0.1:
            continue
        found[np.roll(ids == old, rng.integers(-4, 5, 2), (0, 1))] = number
        if rng.random() < 0.15:
            category = int(rng.integers(133))
        infos.append({"id": number, "category_id": category, "isthing": category < 80})
    present = set(np.unique(found).tolist())
    return torch.from_numpy(found), [info for info in infos if info["id"] in present]


def write_data(folder, images):
    """Register ground truth on the disk; the samples and the predictions for them."""
    rng = np.random.default_rng(0)
    annotations, samples, outputs = [], [], []
    for i in range(images):
        segments, ids = make_scene(rng)
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(rgb).save(os.path.join(folder, f"{i:012d}.png"))
        infos = [
            {
                "id": number,
                "category_id": CLASSES[category]["id"],
                "iscrowd": is_crowd,
                "area": int((ids == number).sum()),
            }
            for number, (category, is_crowd) in segments.items()
        ]
        annotations.append({"image_id": i, "file_name": f"{i:012d}.png", "segments_info": infos})
        samples.append({"image_id": i, "file_name": f"{i:012d}.jpg"})
        outputs.append({"panoptic_seg": predict(rng, segments, ids)})
    categories = [{key: c[key] for key in ("id", "name", "isthing")} for c in CLASSES]
    json_file = os.path.join(folder, "panoptic.json")
    Path(json_file).write_text(json.dumps({"annotations": annotations, "categories": categories}))
    all_ids = {c["id"]: c["train_id"] for c in CLASSES}
    DatasetCatalog.register(NAME, lambda: samples)
    MetadataCatalog.get(NAME).set(
        panoptic_json=json_file,
        panoptic_root=folder,
        stuff_dataset_id_to_contiguous_id=all_ids,
        thing_dataset_id_to_contiguous_id={k: v for k, v in all_ids.items() if v < 80},
    )
    return samples, outputs


def run(make_evaluator, process_seconds, samples, outputs):
    """The results; appends the seconds up to the last image."""
    start = time.perf_counter()
    # A new one each time: ours reads the json in its first `process`, as in a real run.
    evaluator = make_evaluator(NAME)
    evaluator.reset()
    for sample, output in zip(samples, outputs, strict=True):
        evaluator.process([sample], [output])
    process_seconds.append(time.perf_counter() - start)
    return evaluator.evaluate()["panoptic_seg"]


def main():
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    require_detectron2()
    from detectron2.evaluation import COCOPanopticEvaluator

    logging.disable(logging.WARNING)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    titles = {
        "theirs": "detectron2's COCOPanopticEvaluator and panopticapi",
        "ours": "rankseg_d2",
    }
    process_seconds = {name: [] for name in titles}
    runs = {
        name: partial(run, evaluator, process_seconds[name])
        for name, evaluator in (("theirs", COCOPanopticEvaluator), ("ours", PanopticEvaluator))
    }
    with tempfile.TemporaryDirectory() as folder:
        samples, outputs = write_data(folder, args.images)
        times, results = time_in_turn(
            runs,
            args.repeats,
            arguments=lambda _: (samples, copy.deepcopy(outputs)),  # detectron2's changes them
        )
    ours = results["ours"]
    difference = check_equal(ours, results["theirs"], 1e-9)

    def row(name):
        whole, process = (
            1000 * statistics.median(seconds) / args.images
            for seconds in (times[name], process_seconds[name])
        )
        return [titles[name], f"{whole:.2f}", f"{process:.2f}", f"{whole - process:.2f}"]

    segments = sum(len(output["panoptic_seg"][1]) for output in outputs) / args.images
    write_heading(
        "Panoptic evaluation",
        f"""{args.images} images of {WIDTH} x {HEIGHT}, COCO's 133 classes, {segments:.1f} predicted
        segments per image, from predictions in memory to PQ, median of {args.repeats} runs in turn.
        rankseg_d2 runs in one process, panopticapi counts in {os.cpu_count()}.""",
        NumPy=np.__version__,
    )
    faster = times_faster(times["theirs"], times["ours"])
    write_table(
        ["milliseconds per image", "all", "`process`", "`evaluate`"],
        [*map(row, titles), ["times faster, median of pairs (lowest, highest)", faster, "", ""]],
    )
    write(
        f"""
PQ {ours["PQ"]:.3f}, of things {ours["PQ_th"]:.3f}, of stuff {ours["PQ_st"]:.3f}; all nine metrics \
differ by {difference:.0e} at most.
"""
    )


if __name__ == "__main__":
    main()
