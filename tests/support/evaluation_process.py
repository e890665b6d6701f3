"""Evaluate a share of the images in each process: run by tests/evaluation/test_distributed.py."""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import json
import sys
from argparse import Namespace
from pathlib import Path

import torch
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from support.evaluation_data import (
    NAMES,
    instance_outputs,
    panoptic_outputs,
    ranking_outputs,
    register,
    score_maps,
    write,
)

from rankseg_d2.engine import launch
from rankseg_d2.evaluation import (
    EntityEvaluator,
    InstanceEvaluator,
    MultiLabelEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)

NAME = "test_processes"


def make_data(folder):
    """Samples and outputs of every kind, the same in each process."""
    records, metadata = write(folder)
    register(NAME, records, metadata)
    kinds = score_maps, panoptic_outputs, instance_outputs
    outputs = zip(*(kind(records) for kind in kinds), ranking_outputs(len(records)), strict=True)
    return records, [{k: v for part in parts for k, v in part.items()} for parts in outputs]


def evaluate(records, outputs, share, folder=None):
    """Results of all evaluators, of the images in this process's share."""
    torch.manual_seed(0)
    kinds = SemanticEvaluator, PanopticEvaluator, InstanceEvaluator, MultiLabelEvaluator
    kinds = *kinds, EntityEvaluator
    evaluator = DatasetEvaluators([kind(NAME, folder) for kind in kinds])
    evaluator.reset()
    evaluator.process(records[share], outputs[share])
    return evaluator.evaluate()


def main(args):
    folder = Path(sys.argv[1]) / str(comm.get_rank())
    records, outputs = make_data(folder)
    half, everything = len(records) // 2, len(records)
    for name, splits in (
        ("halves", [slice(half), slice(half, everything)]),
        ("all_in_one", [slice(everything), slice(0)]),
    ):
        share = splits[comm.get_rank()]
        results = evaluate(records, outputs, share, str(folder / name))
        if comm.is_main_process():
            content = {"results": results, "world_size": comm.get_world_size(), "names": NAMES}
            (Path(sys.argv[1]) / f"{name}.json").write_text(json.dumps(content))
        else:
            assert results == {}
            assert not (folder / name).exists()


if __name__ == "__main__":
    two = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(main, two)
