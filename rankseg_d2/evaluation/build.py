"""The evaluators of a data set, by its `evaluator_type`, the config and its labels."""

import logging
import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.file_io import PathManager

from ..errors import unknown_name
from ..modeling.meta_arch import model_class
from ..tasks import IMAGE_TYPES, TASKS, VIDEO_LABEL_KEYS, VIDEO_TYPES, find, wanted_tasks
from .multilabel import MultiLabelEvaluator, VideoMultiLabelEvaluator
from .unlabelled import Unlabelled

logger = logging.getLogger(__name__)

# evaluator_type -> factory(cfg, dataset_name, output_folder) -> an evaluator or a list of them
Factory = Callable[[CfgNode, str, str], DatasetEvaluator | list[DatasetEvaluator]]
EVALUATORS: dict[str, Factory] = {}


def register_evaluator(evaluator_type: str) -> Callable[[Factory], Factory]:
    """Decorator for the factory that makes the evaluators for an `evaluator_type`."""

    def decorate(factory: Factory) -> Factory:
        if EVALUATORS.setdefault(evaluator_type, factory) is not factory:
            raise ValueError(
                f"The evaluator type {evaluator_type!r} has a factory already. Give yours "
                "another name, or replace it in rankseg_d2.evaluation.EVALUATORS."
            )
        return factory

    return decorate


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """The evaluator of a data set; it writes to OUTPUT_DIR/inference/<data set> by default."""
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type is None:
        raise ValueError(
            f"The data set {dataset_name!r} has no evaluator_type in its metadata. Set it: "
            f"MetadataCatalog.get({dataset_name!r}).evaluator_type = one of {sorted(EVALUATORS)}."
        )
    if evaluator_type not in EVALUATORS:
        raise unknown_name(f"the evaluator_type of {dataset_name}", evaluator_type, EVALUATORS)
    if output_folder is None:
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    evaluators = EVALUATORS[evaluator_type](cfg, dataset_name, output_folder)
    if pictures := _pictures(cfg, dataset_name, output_folder):
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        evaluators = [*evaluators, *pictures]
    return DatasetEvaluators(evaluators) if isinstance(evaluators, list) else evaluators


def _choose_evaluators(
    cfg: CfgNode, dataset_name: str, output_folder: str
) -> list[DatasetEvaluator]:
    """The evaluators of the tasks that the model predicts and that the data set has labels for."""
    metadata = MetadataCatalog.get(dataset_name)
    is_video = metadata.evaluator_type in VIDEO_TYPES
    possible = (VIDEO_TYPES if is_video else IMAGE_TYPES)[metadata.evaluator_type]
    model = model_class(cfg)
    wanted = wanted_tasks(cfg)
    predicted = [task for task in wanted if model is None or TASKS[task].switch in model.switches]
    tasks = [task for task in possible if task in predicted]
    if not metadata.get("has_labels", True) and (not is_video or possible != ("semantic",)):
        has_label_maps = not is_video and "semantic" in predicted
        return [Unlabelled(dataset_name, output_folder, has_label_maps)]
    if "instance" in tasks and not is_video and not _has_instances(dataset_name, metadata):
        logger.warning(
            "%s has neither json_file nor annotations: instances are not evaluated", dataset_name
        )
        tasks.remove("instance")
    for task in predicted:
        if task not in possible:
            logger.warning(
                "MODEL.MASK_FORMER.TEST.%s is True, but %s has no %s labels, so that no such "
                "metric comes; set the key False to save time, or evaluate another data set",
                TASKS[task].switch, dataset_name, task,
            )  # fmt: skip
    save = cfg.TEST.get("SAVE_PREDICTIONS", False)
    names = [TASKS[task].video_evaluator if is_video else TASKS[task].evaluator for task in tasks]
    evaluators = [find(name)(dataset_name, output_folder, save) for name in names]
    if ranks_categories(cfg) and (not is_video or _has_labels(dataset_name, possible[0])):
        ranking = VideoMultiLabelEvaluator if is_video else MultiLabelEvaluator
        evaluators.append(ranking(dataset_name, output_folder, possible[0]))
    if not evaluators or not set(possible) & set(predicted):
        keys = ", ".join(TASKS[task].switch for task in possible)
        on = ", ".join(sorted(TASKS[task].switch for task in predicted)) or "none"
        raise ValueError(
            f"{dataset_name!r} cannot be evaluated: its evaluator_type "
            f"{metadata.evaluator_type!r} needs {keys} of MODEL.MASK_FORMER.TEST, but only {on} "
            "is True. Set one of them True."
        )
    return evaluators


for _type in (*IMAGE_TYPES, *VIDEO_TYPES):
    register_evaluator(_type)(_choose_evaluators)


def _pictures(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """What draws the pictures that TEST.PICTURES asks for; none without ground truth to show."""
    metadata, count = MetadataCatalog.get(dataset_name), cfg.TEST.get("PICTURES", 0)
    if not count or not metadata.get("has_labels", True):
        return []
    if metadata.evaluator_type in IMAGE_TYPES:
        from .examples import Examples
        from .pictures import PictureSheet

        return [kind(dataset_name, output_folder, count) for kind in (PictureSheet, Examples)]
    task, *_ = VIDEO_TYPES.get(metadata.evaluator_type, (None,))
    if task not in wanted_tasks(cfg) or not _has_labels(dataset_name, task):
        return []
    from .video_pictures import VideoPictureSheet

    return [VideoPictureSheet(dataset_name, output_folder, count)]


def ranks_categories(cfg: CfgNode) -> bool:
    """Whether the model ranks; the ranking of the oracle is the ground truth, so not evaluated."""
    model = model_class(cfg)
    ranks = "RANKSEG" in cfg.MODEL if model is None else model.ranks
    return ranks and cfg.MODEL.RANKSEG.FLAG and not cfg.MODEL.RANKSEG.USE_GT


def _has_instances(dataset_name: str, metadata: Metadata) -> bool:
    """Whether the data set has ground-truth instances; FileNotFoundError without their json.

    Checked now, because the json is read only after the last prediction.
    """
    if json_file := metadata.get("json_file"):
        if not PathManager.isfile(os.fspath(json_file)):
            raise FileNotFoundError(
                f"The ground truth of {dataset_name!r}, {json_file}, does not exist. Prepare the "
                "data set, or set MODEL.MASK_FORMER.TEST.INSTANCE_ON False."
            )
        return True
    return any("annotations" in record for record in DatasetCatalog.get(dataset_name)[:1])


def _has_labels(dataset_name: str, task: str) -> bool:
    """Whether any video of the data set has labels; a test split may have none."""
    key = VIDEO_LABEL_KEYS[task]
    return any(any(record.get(key, ())) for record in DatasetCatalog.get(dataset_name))
