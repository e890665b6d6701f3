"""A run folder as training and evaluation leave it, of a few drawn scenes."""

import json

import numpy as np
import torch
from PIL import Image
from support.evaluation_data import (
    CATEGORIES,
    CLASSES,
    IGNORE,
    panoptic_outputs,
    read_scene,
    register,
    run_evaluator,
    to_labels,
    write,
)
from support.toy import toy_config

from rankseg_d2.engine.result_files import write_results
from rankseg_d2.evaluation import MultiLabelEvaluator, PanopticEvaluator, SemanticEvaluator
from rankseg_d2.evaluation.examples import Examples

KEPT = 4


def write_scenes(name, folder, count=12):
    """Write and register a data set with images; its records."""
    records, metadata = write(folder, count)
    rng = np.random.default_rng(5)
    for record in records:
        size = record["height"], record["width"]
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        record["file_name"] = str(folder / record["file_name"])
        Image.fromarray(coarse).resize(size[::-1]).save(record["file_name"])
    register(name, records, metadata)
    return records


def predictions(records, ranked=True):
    """Shifted labels and segments, the first image right and the last one all wrong."""
    rng, outputs = np.random.default_rng(0), panoptic_outputs(records)
    for number, (record, output) in enumerate(zip(records, outputs, strict=True)):
        labels = to_labels(*read_scene(record)).astype(np.int64)
        true = np.isin(np.arange(CLASSES), labels)
        shifted = np.where(labels == IGNORE, 0, np.roll(labels, number, 1))
        shifted[shifted == IGNORE] = 1
        if number == len(records) - 1:
            shifted[:] = [c["name"] for c in CATEGORIES].index("snow")  # in no image
        output["sem_seg_labels"] = torch.from_numpy(shifted)
        if ranked:
            scores = torch.from_numpy(rng.normal(np.where(true, 1.0, -1.0), 1.5)).float()
            classes = scores.argsort(descending=True)[:KEPT]
            output["ranking"] = {"scores": scores, "classes": classes}
    return outputs


def make_run(folder, name, records, outputs, count=3, iterations=40):
    """Evaluate the outputs, and write what a training leaves."""
    results, source = {}, str(folder / "inference" / name)
    evaluators = [SemanticEvaluator(name, source), PanopticEvaluator(name, source)]
    if "ranking" in outputs[0]:
        evaluators.append(MultiLabelEvaluator(name, source, "panoptic"))
    for evaluator in evaluators:
        results |= run_evaluator(evaluator, records, outputs)
    run_evaluator(Examples(name, source, count), records, outputs)
    cfg = toy_config(folder, "DATASETS.TEST", (name,))
    (folder / "config.yaml").write_text(cfg.dump())
    if iterations:
        rows = [{"iteration": i, "total_loss": 5 / (i + 1), "loss_mask_0": 2 / (i + 1)}
                for i in range(iterations)]  # fmt: skip
        rows[-1] |= {"sem_seg/mIoU": 33.0, "panoptic_seg/PQ": 22.0, "sem_seg/IoU-sky": 1.0}
        (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_results(cfg, results, "model_final.pth")
    return results
