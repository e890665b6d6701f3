"""The evaluators of a data set, by the `evaluator_type` in its metadata."""

import os
from collections.abc import Callable

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..errors import unknown_name

# evaluator_type -> factory(cfg, dataset_name, output_folder), which returns one or a list
EVALUATORS: dict[str, Callable] = {}
# The types of videos, and the key of their records that is their truth
VIDEOS = {
    "vspw_sem_seg": "sem_seg_file_names",
    "vss": "sem_seg_file_names",
    "ytvis": "annotations",
}


def register_evaluator(evaluator_type: str):
    """Decorator: this factory makes the evaluators of data sets with that `evaluator_type`."""

    def register(factory):
        if EVALUATORS.setdefault(evaluator_type, factory) is not factory:
            raise ValueError(
                f"the evaluator type {evaluator_type!r} has a factory already; give yours "
                "another name, or replace it in rankseg_d2.evaluation.EVALUATORS"
            )
        return factory

    return register


def build_evaluator(cfg, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """The evaluator of a data set; its files go to OUTPUT_DIR/inference/<data set> by default."""
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type is None:
        raise ValueError(
            f"the data set {dataset_name!r} has no evaluator_type in its metadata; set it: "
            f"MetadataCatalog.get({dataset_name!r}).evaluator_type = one of {sorted(EVALUATORS)}"
        )
    if evaluator_type not in EVALUATORS:
        raise unknown_name(f"the evaluator_type of {dataset_name}", evaluator_type, EVALUATORS)
    if output_folder is None:
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    evaluators = EVALUATORS[evaluator_type](cfg, dataset_name, output_folder)
    if (count := cfg.TEST.get("PICTURES", 0)) and evaluator_type not in VIDEOS:
        from .pictures import PictureSheet

        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        evaluators = [*evaluators, PictureSheet(dataset_name, output_folder, count)]
    return DatasetEvaluators(evaluators) if isinstance(evaluators, list) else evaluators
