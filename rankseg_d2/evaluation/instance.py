"""Instance segmentation: COCO's average precision."""

import contextlib
import io
import logging
from importlib.util import find_spec

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats import rle
from ..tables import text_table, unique_names, write_json, write_tables
from .ground_truth.instances import InstanceTruth, load_truth

logger = logging.getLogger(__name__)

# Places in COCOeval's `stats`
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
STATS |= {"AR1": 6, "AR10": 7, "AR100": 8}


class InstanceEvaluator(DatasetEvaluator):
    """{"segm": AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, AP-<class>}, in percent.

    With "bbox" among the tasks the same for boxes. The truth is the metadata's `json_file` or, if
    there is none, the annotations of the records. What is kept of an image are RLE masks.
    """

    def __init__(
        self,
        dataset_name: str,
        output_folder: str | None = None,
        save_predictions=False,
        tasks: tuple[str, ...] = ("segm",),
    ):
        """
        Args:
            output_folder: for the tables of the classes; None: no files.
            save_predictions: write instances_predictions.json too, in COCO's result format.
            tasks: of "segm" and "bbox".
        """
        if unknown := set(tasks) - {"segm", "bbox"}:
            raise ValueError(f"tasks must be of 'segm' and 'bbox', not {sorted(unknown)[0]!r}")
        self.dataset_name = dataset_name
        self.output_folder = output_folder
        self.save_predictions = save_predictions
        self.tasks = tasks
        self.reset()

    def reset(self):
        self.predictions = []

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                raise ValueError(
                    f"the model's output has no instances, but only {', '.join(output)}; set "
                    "MODEL.MASK_FORMER.TEST.INSTANCE_ON True, or leave out the instance evaluator"
                )
            self.predictions.append(compact(sample["image_id"], output["instances"]))

    def evaluate(self):
        parts = comm.gather(self.predictions)
        if not comm.is_main_process():
            return None
        truth = load_truth(self.dataset_name)
        check_images(truth, sum(parts, []), self.dataset_name)
        rows = [row for part in parts for image in part for row in result_rows(image, truth)]
        results = {task: self.evaluate_task(truth, rows, task) for task in self.tasks}
        if self.save_predictions and self.output_folder is not None:
            rows = [row | {"segmentation": rle.as_text(row["segmentation"])} for row in rows]
            write_json(self.output_folder, "instances_predictions", rows)
        return results

    def evaluate_task(self, truth: InstanceTruth, rows: list[dict], task: str) -> dict[str, float]:
        coco_eval = run_coco_eval(truth.content, rows, task)
        stats = coco_eval.stats
        metrics = {
            name: 100 * float(stats[i]) if stats[i] >= 0 else float("nan")
            for name, i in STATS.items()
        }
        precision = coco_eval.eval["precision"]  # (IoU, recall, class, area, max detections)
        names = {category["id"]: category["name"] for category in truth.content["categories"]}
        ids = sorted(names)
        class_names = unique_names([names[i] for i in ids])
        table = [
            {"id": i, "class": name}
            | {key: mean_precision(values) for key, values in parts_of(precision[:, :, k]).items()}
            for k, (i, name) in enumerate(zip(ids, class_names, strict=True))
        ]
        write_tables(self.output_folder, task, metrics, table)
        logger.info("instances, %s\n%s", task, text_table([metrics]))
        return metrics | {f"AP-{row['class']}": row["AP"] for row in table}


def compact(image_id, instances) -> dict:
    """What is kept of an image's instances."""
    masks = instances.pred_masks.transpose(1, 2).contiguous().cpu().numpy()  # (N, W, H)
    rles = rle.encode_columns(masks)
    return {
        "image_id": image_id,
        "size": tuple(instances.pred_masks.shape[1:]),
        "counts": [one["counts"] for one in rles],
        "boxes": instances.pred_boxes.tensor.cpu().numpy() if instances.has("pred_boxes") else None,
        "scores": instances.scores.cpu().numpy(),
        "classes": instances.pred_classes.cpu().numpy(),
    }


def check_images(truth: InstanceTruth, predictions: list[dict], dataset_name: str) -> None:
    """ValueError if an image is unknown or has another size, or a class cannot be."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth.content["images"]}
    for image in predictions:
        image_id, size = image["image_id"], image["size"]
        if image_id not in sizes:
            known = ", ".join(map(repr, list(sizes)[:3]))
            raise ValueError(
                f"the image {image_id!r} is not in the ground truth of {dataset_name!r}, whose "
                f"images are {known}, …; image_id of records and json must be the same"
            )
        if size != sizes[image_id]:
            raise ValueError(
                f"the masks of image {image_id!r} have height and width {size}, but the ground "
                f"truth of {dataset_name!r} says {sizes[image_id]}; check height and width in "
                "the record"
            )
        if len(image["classes"]) and image["classes"].max() >= truth.num_classes:
            raise ValueError(
                f"the prediction for image {image_id!r} has the class {image['classes'].max()}, "
                f"but the data set {dataset_name!r} has {truth.num_classes} classes; evaluate a "
                "model with as many classes as the data set"
            )


def result_rows(image: dict, truth: InstanceTruth) -> list[dict]:
    """COCO's result format; what is no thing of the data set is left out."""
    rows = []
    for i, category in enumerate(image["classes"].tolist()):
        if category not in truth.dataset_ids:
            continue
        row = {
            "image_id": image["image_id"],
            "category_id": truth.dataset_ids[category],
            "score": float(image["scores"][i]),
            "segmentation": {"size": list(image["size"]), "counts": image["counts"][i]},
        }
        if image["boxes"] is not None:
            x0, y0, x1, y1 = image["boxes"][i].tolist()
            row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        rows.append(row)
    return rows


def run_coco_eval(content: dict, rows: list[dict], task: str):
    """COCOeval with its results; by faster_coco_eval, if that is installed: the same numbers."""
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
    # faster_coco_eval takes no names, such as ADE20K's, for ids of images.
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


def parts_of(precision: np.ndarray) -> dict[str, np.ndarray]:
    """Precisions (IoU, recall, area, max detections) of a class by the name of the metric."""
    at_most_100 = precision[..., -1]
    everything = {"AP": at_most_100[..., 0], "AP50": at_most_100[0, :, 0]}
    everything["AP75"] = at_most_100[5, :, 0]
    return everything | {f"AP{size}": at_most_100[..., i] for i, size in enumerate("sml", 1)}


def mean_precision(values: np.ndarray) -> float:
    """In percent; COCO marks what does not occur by -1."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else float("nan")
