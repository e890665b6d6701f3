"""Instance segmentation: COCO's average precision."""

import contextlib
import io
import logging
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ..data.formats import rle
from ..modeling.results.reading import require
from ..tables import text_table, unique_names, write_json, write_tables
from .checks import check_known, check_once
from .ground_truth import InstanceGroundTruth, load_instances

logger = logging.getLogger(__name__)

# Index in COCOeval's `stats`
_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
_STATS |= {"AR1": 6, "AR10": 7, "AR100": 8}


class InstanceEvaluator(DatasetEvaluator):
    """{"segm": AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, AP-<class>}, in percent.

    With the task "bbox" the same for boxes. The ground truth is the metadata's `json_file` or,
    without one, the annotations of the records. Predicted masks are kept as RLEs.
    """

    names = {"segm": "segm", "bbox": "bbox"}  # of the results of a task
    advice = "Set MODEL.MASK_FORMER.TEST.INSTANCE_ON True."

    def __init__(
        self,
        dataset_name: str,
        output_folder: str | None = None,
        save_predictions: bool = False,
        tasks: tuple[str, ...] = ("segm",),
    ):
        """
        Args:
            output_folder: where the table of classes goes; None writes no files.
            save_predictions: also write instances_predictions.json, in COCO's result format.
            tasks: "segm", "bbox" or both.
        """
        if unknown := set(tasks) - {"segm", "bbox"}:
            raise ValueError(f"tasks must be 'segm', 'bbox' or both; got {min(unknown)!r}.")
        self.dataset_name = dataset_name
        self.output_folder = output_folder
        self.save_predictions = save_predictions
        self.tasks = tasks
        self.reset()

    @cached_property
    def ground_truth(self) -> InstanceGroundTruth:
        """Read once; ValueError if an annotation lacks what the tasks compare."""
        ground_truth = load_instances(self.dataset_name)
        needed = {{"segm": "segmentation", "bbox": "bbox"}[task] for task in self.tasks}
        for annotation in ground_truth.content["annotations"]:
            if lacks := [key for key in sorted(needed) if not annotation.get(key)]:
                raise ValueError(
                    f"An annotation of image {annotation['image_id']!r} of {self.dataset_name!r} "
                    f"has no {lacks[0]}, which AP needs. Add it, or remove the annotation."
                )
        return ground_truth

    def check_ground_truth(self) -> None:
        """Raise an error now if the annotations are damaged."""
        self.ground_truth  # noqa: B018

    def reset(self) -> None:
        self.predictions = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            require(output, "instances", advice=self.advice)
            self.predictions.append(self.compact(sample["image_id"], output["instances"]))

    def evaluate(self) -> dict | None:
        parts = comm.gather(self.predictions)
        if not comm.is_main_process():
            return None
        ground_truth = self.ground_truth
        images = sum(parts, [])
        _check_images(ground_truth, images, self.dataset_name)
        rows = [row for image in images for row in _result_rows(image, ground_truth)]
        results = {
            self.names[task]: self._evaluate_task(ground_truth, rows, task) for task in self.tasks
        }
        if self.save_predictions and self.output_folder is not None:
            rows = [row | {"segmentation": rle.as_text(row["segmentation"])} for row in rows]
            write_json(self.output_folder, "instances_predictions", rows)
        return results

    def _evaluate_task(
        self, ground_truth: InstanceGroundTruth, rows: list[dict], task: str
    ) -> dict[str, float]:
        """The metrics of COCO's result rows, for masks or for boxes."""
        coco_eval = _run_coco_eval(ground_truth.content, rows, task)
        stats = coco_eval.stats
        metrics = {
            name: 100 * float(stats[i]) if stats[i] >= 0 else float("nan")
            for name, i in _STATS.items()
        }
        precision = coco_eval.eval["precision"]  # (IoU, recall, class, area, max detections)
        categories = ground_truth.content["categories"]
        names = {category["id"]: category["name"] for category in categories}
        ids = sorted(names)
        class_names = unique_names([names[i] for i in ids])
        table = [
            {"id": i, "class": name}
            | {name: _mean(values) for name, values in _precisions(precision[:, :, k]).items()}
            for k, (i, name) in enumerate(zip(ids, class_names, strict=True))
        ]
        write_tables(self.output_folder, self.names[task], metrics, table)
        logger.info("instances, %s\n%s", self.names[task], text_table([metrics]))
        return metrics | self.of_classes(table)

    def of_classes(self, table: list[dict]) -> dict[str, float]:
        """The metrics of the single classes."""
        return {f"AP-{row['class']}": row["AP"] for row in table}

    def compact(self, image_id: Any, instances: Instances) -> dict:
        """An image's instances in little memory, its masks as RLEs."""
        masks = instances.pred_masks.transpose(1, 2).contiguous().cpu().numpy()  # (N, W, H)
        rles = rle.encode_columns(masks)
        boxes = instances.pred_boxes.tensor.cpu().numpy() if instances.has("pred_boxes") else None
        return {
            "image_id": image_id,
            "size": tuple(instances.pred_masks.shape[1:]),
            "counts": [one["counts"] for one in rles],
            "boxes": boxes,
            "scores": instances.scores.cpu().numpy(),
            "classes": instances.pred_classes.cpu().numpy(),
        }


def _check_images(
    ground_truth: InstanceGroundTruth, predictions: list[dict], dataset_name: str
) -> None:
    """ValueError if an image is unknown, twice or of another size, or if a class is too high."""
    images = ground_truth.content["images"]
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    check_once((image["image_id"] for image in predictions), dataset_name)
    for image in predictions:
        image_id, size = image["image_id"], image["size"]
        check_known(image_id, sizes, dataset_name)
        if size != sizes[image_id]:
            raise ValueError(
                f"The masks of image {image_id!r} have height and width {size}, but the ground "
                f"truth of {dataset_name!r} says {sizes[image_id]}. Check height and width in "
                "the record."
            )
        if len(image["classes"]) and image["classes"].max() >= ground_truth.num_classes:
            raise ValueError(
                f"The prediction for image {image_id!r} has the class {image['classes'].max()}, "
                f"but the data set {dataset_name!r} has {ground_truth.num_classes} classes. "
                "Evaluate a model with as many classes as the data set."
            )


def _result_rows(image: dict, ground_truth: InstanceGroundTruth) -> list[dict]:
    """The instances in COCO's result format, without those of a stuff class."""
    rows = []
    for i, category in enumerate(image["classes"].tolist()):
        if category not in ground_truth.dataset_ids:
            continue
        row = {
            "image_id": image["image_id"],
            "category_id": ground_truth.dataset_ids[category],
            "score": float(image["scores"][i]),
            "segmentation": {"size": list(image["size"]), "counts": image["counts"][i]},
        }
        if image["boxes"] is not None:
            x0, y0, x1, y1 = image["boxes"][i].tolist()
            row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        rows.append(row)
    return rows


def _run_coco_eval(content: dict, rows: list[dict], task: str):
    """COCOeval with its results; of faster_coco_eval, the same numbers, where it is installed."""
    if find_spec("faster_coco_eval"):
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    if task == "segm":
        areas = rle.areas([row["segmentation"] for row in rows])
    else:
        areas = [row["bbox"][2] * row["bbox"][3] for row in rows]
    results = [
        row | {"id": i, "area": float(area), "iscrowd": 0}
        for i, (row, area) in enumerate(zip(rows, areas, strict=True), 1)
    ]
    # faster_coco_eval wants numbers as image ids; ADE20K has names.
    numbers = {name: i for i, name in enumerate(sorted(x["id"] for x in content["images"]), 1)}
    images = [image | {"id": numbers[image["id"]]} for image in content["images"]]
    with contextlib.redirect_stdout(io.StringIO()):  # they print
        apis = COCO(), COCO()
        for api, annotations in zip(apis, (content["annotations"], results), strict=True):
            numbered = [
                annotation | {"image_id": numbers[annotation["image_id"]]}
                for annotation in annotations if annotation["image_id"] in numbers
            ]
            api.dataset = content | {"images": images, "annotations": numbered}
            api.createIndex()
        coco_eval = COCOeval(*apis, task)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval


def _precisions(precision: np.ndarray) -> dict[str, np.ndarray]:
    """The part of a class's precisions (IoU, recall, area, max detections) for each metric."""
    at_most_100 = precision[..., -1]
    parts = {"AP": at_most_100[..., 0], "AP50": at_most_100[0, :, 0]}
    parts["AP75"] = at_most_100[5, :, 0]
    return parts | {f"AP{size}": at_most_100[..., i] for i, size in enumerate("sml", 1)}


def _mean(values: np.ndarray) -> float:
    """The mean in percent; COCOeval marks categories without ground truth by -1."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else float("nan")
