"""Evaluate a share of the videos in each process: run by tests/evaluation/test_distributed.py."""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import json
import sys
from argparse import Namespace
from pathlib import Path

import torch
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from support.evaluation_data import register
from support.evaluation_videos import (
    instance_outputs,
    label_outputs,
    video_samples,
    write_label_maps,
    write_objects,
)

from rankseg_d2.engine import launch
from rankseg_d2.evaluation import (
    VideoInstanceEvaluator,
    VideoMultiLabelEvaluator,
    VideoSemanticEvaluator,
)

OBJECTS, LABELS = "test_video_processes_objects", "test_video_processes_labels"


def make_data(folder):
    """(evaluators, samples, outputs) of both kinds, the same in each process."""
    folder.mkdir(parents=True)
    content, metadata = write_objects(folder)
    register(OBJECTS, [], metadata)
    records, metadata = write_label_maps(folder / "labels")
    register(LABELS, records, metadata)
    random = torch.Generator().manual_seed(0)
    outputs = label_outputs(records)
    for output in outputs:
        scores = torch.rand(4, generator=random)
        output["ranking"] = {"scores": scores, "classes": scores.topk(2).indices}
    labels = [VideoSemanticEvaluator(LABELS), VideoMultiLabelEvaluator(LABELS)]
    return (
        (VideoInstanceEvaluator(OBJECTS), video_samples(content), instance_outputs(content)),
        (DatasetEvaluators(labels), records, outputs),
    )


def evaluate(data, first, last):
    """Results of all evaluators from a share of the videos."""
    results = {}
    for evaluator, samples, outputs in data:
        share = slice(round(first * len(samples)), round(last * len(samples)))
        evaluator.reset()
        evaluator.process(samples[share], outputs[share])
        results |= evaluator.evaluate() or {}
    return results


def main(args):
    data = make_data(Path(sys.argv[1]) / str(comm.get_rank()))
    # The second part to the first process, or everything
    for name, shares in (("halves", [(0.5, 1), (0, 0.5)]), ("all_in_one", [(0, 1), (1, 1)])):
        results = evaluate(data, *shares[comm.get_rank()])
        if comm.is_main_process():
            content = {"results": results, "world_size": comm.get_world_size()}
            (Path(sys.argv[1]) / f"{name}.json").write_text(json.dumps(content))
        else:
            assert results == {}


if __name__ == "__main__":
    launch(main, Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto"))
