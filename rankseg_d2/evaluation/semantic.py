"""Semantic segmentation: mIoU and other metrics of a confusion matrix."""

import logging
import os

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats import rle
from ..modeling.results.reading import kept_categories, label_map
from ..tables import main_metrics, text_table, unique_names, write_json, write_tables
from .background import Background
from .checks import check_files, check_once, check_size
from .confusion import Confusion
from .error_split import IGNORED, Causes, PixelSplit, pixel_causes, write_split
from .ground_truth import LabelMaps, image_key

logger = logging.getLogger(__name__)


class SemanticEvaluator(DatasetEvaluator):
    """{"sem_seg": mIoU, mIoU_nanmean, fwIoU, mACC, pACC, IoU-<class>, ACC-<class>}, in percent.

    mIoU is the mean over the classes in the ground truth (as in detectron2), mIoU_nanmean over the
    classes in ground truth or prediction (as in mmsegmentation). A pixel predicted as no category
    is wrong. Threads compare the images while the model runs.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, save_predictions: bool = False
    ):
        """
        Args:
            output_folder: where tables and confusion matrix go; None writes no files.
            save_predictions: also write sem_seg_predictions.json, RLEs in COCO's stuff format.
        """
        self.dataset_name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        self.names = unique_names(metadata.stuff_classes)
        self.ignore = metadata.get("ignore_label", 255)
        if 0 <= self.ignore < len(self.names):
            raise ValueError(
                f"The ignore_label of {dataset_name!r} is {self.ignore}, which is also one of its "
                f"{len(self.names)} classes. Set another in the metadata, for example 65535."
            )
        dataset_ids = metadata.get("stuff_dataset_id_to_contiguous_id", {})
        self.dataset_ids = {contiguous: own for own, contiguous in dataset_ids.items()}
        self.label_maps = LabelMaps(dataset_name)
        self.output_folder = output_folder
        self.save_predictions = save_predictions
        self.reset()

    def reset(self) -> None:
        count = len(self.names)
        self.confusion = Confusion(count)
        self.split = PixelSplit(count)
        self.background = Background(self.add)
        self.predictions, self.seen = [], []

    def check_ground_truth(self) -> None:
        """Raise an error now if label files are missing."""
        keys = ("sem_seg_file_name", "pan_seg_file_name")
        records = self.label_maps.ground_truth.records.values()
        found = (next((record[key] for key in keys if key in record), None) for record in records)
        check_files((path for path in found if path), self.dataset_name)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            predicted, key = label_map(output), image_key(sample)
            self.label_maps.ground_truth.find(sample)  # loads the records once, not in each thread
            record = {name: value for name, value in sample.items() if name != "image"}
            self.background.submit(self._compare, record, predicted, kept_categories(output))
            self.seen.append(key)
            if self.save_predictions:
                self.predictions += self._encode(predicted, sample)

    def _compare(self, sample: dict, predicted: np.ndarray, kept: np.ndarray | None) -> Causes:
        ground_truth, path = self.label_maps.read(sample)
        check_size(path, ground_truth, predicted, f"image {image_key(sample)!r}")
        return self.causes(ground_truth, predicted, path, kept)

    def causes(
        self, ground_truth: np.ndarray, predicted: np.ndarray, path: str, kept: np.ndarray | None
    ) -> Causes:
        """The runs of pixels of two label maps (H, W), for `add`."""
        count = len(self.names)
        if predicted.min() < 0 or predicted.max() > count:
            raise ValueError(
                f"The prediction for {path} has labels from {predicted.min()} to "
                f"{predicted.max()}, but the data set has {count} classes, 0 to {count - 1}, and "
                f"{count} for none. Evaluate a model with as many classes as the data set."
            )
        return pixel_causes(ground_truth, predicted, kept, count, self.ignore)

    def add(self, causes: Causes) -> None:
        """Count runs of pixels in the confusion matrix and in the error split."""
        self.split.add(causes)
        known = causes.cause != IGNORED
        true, predicted, lengths, _ = (values[known] for values in causes)
        self.confusion.add_runs(true, predicted, lengths)

    def _encode(self, predicted: np.ndarray, sample: dict) -> list[dict]:
        rows = []
        for label in np.unique(predicted).tolist():
            if label == len(self.names):
                continue
            mask = rle.as_text(rle.encode(predicted == label))
            category = self.dataset_ids.get(label, label)
            key = {"file_name": image_key(sample)}
            rows.append(key | {"category_id": category, "segmentation": mask})
        return rows

    def evaluate(self) -> dict | None:
        self.background.finish()
        parts = comm.gather((self.confusion, self.split, self.predictions, self.seen))
        if not comm.is_main_process():
            return None
        confusions, splits, predictions, seen = zip(*parts, strict=True)
        check_once(sum(seen, []), self.dataset_name)
        count = len(self.names)
        confusion, split = Confusion(count), sum(splits, PixelSplit(count))
        for part in confusions:
            confusion.add(*part.pairs())
        classes = _class_metrics(confusion)
        metrics = _mean_metrics(classes)
        for key in ("IoU", "ACC"):
            percents = (100 * classes[key]).tolist()
            names = (f"{key}-{name}" for name in self.names)
            metrics |= dict(zip(names, percents, strict=True))
        self._write(confusion, metrics, classes, sum(predictions, []))
        logger.info("semantic segmentation\n%s", text_table([main_metrics(metrics)]))
        write_split(self.output_folder, "sem_seg", "mIoU", split.values(), self.names)
        return {"sem_seg": metrics}

    def _write(
        self,
        confusion: Confusion,
        metrics: dict[str, float],
        classes: dict[str, np.ndarray],
        predictions: list[dict],
    ) -> None:
        if self.output_folder is None:
            return
        columns = {
            "IoU": (100 * classes["IoU"]).tolist(),
            "ACC": (100 * classes["ACC"]).tolist(),
            "true_pixels": classes["ground_truth"].tolist(),
            "predicted_pixels": classes["predicted"].tolist(),
        }
        rows = [
            {"id": i, "class": name} | {key: values[i] for key, values in columns.items()}
            for i, name in enumerate(self.names)
        ]
        write_tables(self.output_folder, "sem_seg", main_metrics(metrics), rows)
        confusion.save(os.path.join(self.output_folder, "sem_seg_confusion.npz"), self.names)
        if self.save_predictions:
            write_json(self.output_folder, "sem_seg_predictions", predictions)


def _mean_metrics(classes: dict[str, np.ndarray]) -> dict[str, float]:
    """The metrics over all classes, in percent, of those of each one."""
    total, is_true = classes["ground_truth"].sum(), classes["ground_truth"] > 0
    iou, share = classes["IoU"][is_true], classes["ground_truth"][is_true] / total.clip(1)
    is_seen = is_true | (classes["predicted"] > 0)
    metrics = {
        "mIoU": _mean(iou),
        "mIoU_nanmean": np.nansum(classes["IoU"]) / is_seen.sum() if is_seen.any() else np.nan,
        "fwIoU": (share * iou).sum() if is_true.any() else np.nan,
        "mACC": _mean(classes["ACC"][is_true]),
        "pACC": classes["hits"].sum() / total if is_true.any() else np.nan,
    }
    return {name: 100 * float(value) for name, value in metrics.items()}


def _class_metrics(confusion: Confusion) -> dict[str, np.ndarray]:
    """IoU and ACC in [0, 1], NaN for classes without ground truth, and pixels: (C,) each."""
    hits, ground_truth = confusion.hits(), confusion.true_pixels()
    predicted = confusion.predicted_pixels()
    with np.errstate(invalid="ignore"):
        accuracy = hits / ground_truth  # 0 / 0 is NaN
        iou = np.where(ground_truth > 0, hits / (ground_truth + predicted - hits), np.nan)
    pixels = {"hits": hits, "ground_truth": ground_truth, "predicted": predicted}
    return {"IoU": iou, "ACC": accuracy} | pixels


def _mean(values: np.ndarray) -> float:
    return values.mean() if len(values) else np.nan
