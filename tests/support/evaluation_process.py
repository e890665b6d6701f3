"""Evaluate a share of the images in each process: run by tests/evaluation/test_distributed.py."""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from PIL import Image
from support.evaluation_data import (
    CONTIGUOUS,
    NAMES,
    instance_outputs,
    panoptic_outputs,
    ranking_outputs,
    read_scene,
    register,
    score_maps,
    write,
)

from rankseg_d2.data.formats.person_labels import PersonLabels
from rankseg_d2.engine import launch
from rankseg_d2.evaluation import (
    EntityEvaluator,
    InstanceEvaluator,
    MultiLabelEvaluator,
    PanopticEvaluator,
    ParsingEvaluator,
    SemanticEvaluator,
)

NAME = "test_processes"


def make_data(folder):
    """Samples and outputs of every kind, the same in each process."""
    records, metadata = write(folder)
    write_persons(folder, records)
    register(NAME, records, metadata | {"part_classes": ["head", "arm"]})
    kinds = score_maps, panoptic_outputs, instance_outputs
    outputs = zip(*(kind(records) for kind in kinds), ranking_outputs(len(records)), strict=True)
    outputs = [{k: v for part in parts for k, v in part.items()} for parts in outputs]
    for output in outputs:
        persons = output["instances"]
        persons.pred_parts = torch.from_numpy(parts_of(persons.pred_masks.numpy()))
    return records, outputs


def write_persons(folder, records):
    """Make each thing a person: `person_labels` of the records."""
    for number, record in enumerate(records):
        ids, infos = read_scene(record)
        things = [info["id"] for info in infos if info["category_id"] in CONTIGUOUS]
        paths = [str(folder / f"labels/{number}_{i}.png") for i in range(len(things))]
        for path, thing in zip(paths, things, strict=True):
            Image.fromarray(parts_of(ids == thing)).save(path)
        record["person_labels"] = PersonLabels(tuple(paths), num_parts=3)


def parts_of(masks):
    """Part maps (..., H, W) of masks: stripes of two parts."""
    stripes = 1 + np.arange(masks.shape[-1]) // 10 % 2
    return (masks * stripes).astype(np.uint8)


def evaluate(records, outputs, share, folder=None):
    """Results of all evaluators, of the images in this process's share."""
    torch.manual_seed(0)
    kinds = SemanticEvaluator, PanopticEvaluator, InstanceEvaluator, MultiLabelEvaluator
    kinds = *kinds, EntityEvaluator, ParsingEvaluator
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
