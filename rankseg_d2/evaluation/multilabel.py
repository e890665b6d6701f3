"""How well the ranking of an image's categories finds those that are present."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from ..data.formats.label_images import present_values, read_label_map
from ..data.formats.person_labels import PersonLabels
from ..modeling.results.reading import require
from ..ranking import Ranking, reliability
from ..ranking.metrics import (
    class_ap,
    in_order,
    label_ranking_ap,
    precision_at_k,
    recall_at_k,
)
from ..tables import text_table, unique_names, write_json, write_tables
from ..tasks import TASKS, VIDEO_LABEL_KEYS
from .checks import check_once
from .ground_truth import GroundTruth, image_key

logger = logging.getLogger(__name__)

CLASSES_AT_ONCE = 64  # limits the memory for sorting the scores of all images


class MultiLabelEvaluator(DatasetEvaluator):
    """{"multilabel": mAP, LRAP, recall@k, precision@k, k, AP-<class>}, all but k in percent.

    k is the mean number of kept categories. Recall and LRAP leave out images without a category,
    mAP leaves out categories that are in no image; the precision of an image without a category
    is 0.

    The categories present in an image are those of the labels of `task`: a label map at native
    size, panoptic segments or annotations, crowds included. The AP of a category needs the scores
    of all images, so N x C float32 numbers are kept.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, task: str = "semantic"
    ):
        """
        Args:
            output_folder: where the tables of classes and ranks go; None writes no files.
            task: whose labels and classes count. A record may have labels of several tasks, whose
                class ids differ.
        """
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.names = unique_names(getattr(self.metadata, TASKS[task].class_list))
        self.ground_truth = GroundTruth(dataset_name, self.keys(task))
        self.output_folder = output_folder
        self.reset()

    @staticmethod
    def keys(task: str) -> tuple[str, ...]:
        """Keys of a record that give its categories, preferred first."""
        others = (key for other in TASKS.values() for key in other.present_keys)
        return tuple(dict.fromkeys((*TASKS[task].present_keys, *others)))

    def reset(self) -> None:
        self.seen = []
        self.scores, self.present, self.measures = [], [], []
        # Of each rank: the categories with it, and the sum of the shares that they are of an image.
        self.ranks = torch.zeros(2, len(self.names), dtype=torch.float64)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            require(output, "ranking", advice="Evaluate a model with MODEL.RANKSEG.FLAG True.")
            scores = output["ranking"]["scores"].float().cpu()[None]  # (1, C)
            kept = output["ranking"]["classes"].cpu()[None]  # (1, K)
            if scores.shape[1] != len(self.names):
                raise ValueError(
                    f"The model ranks {scores.shape[1]} categories, but the data set has "
                    f"{len(self.names)}. Evaluate a model with as many classes as the data set."
                )
            present = self.present_categories(sample)[None]  # (1, C)
            ranking = Ranking(scores, kept)
            measures = (
                label_ranking_ap(scores, present),
                recall_at_k(ranking, present),
                precision_at_k(ranking, present),
                torch.tensor([float(ranking.K)]),
            )
            self.measures.append(torch.cat(measures))
            found = in_order(scores, present)[0].double()  # (C,)
            self.ranks += torch.stack([found, found / found.sum().clamp(min=1)])
            self.scores.append(scores)
            self.present.append(present)
            self.seen.append(image_key(sample))

    def present_categories(self, sample: dict) -> Tensor:
        """Whether each category is present in the sample's image: (C,) bool."""
        labels = np.asarray(self._labels_of(self.ground_truth.find(sample)), np.int64)
        self._check_classes(labels, image_key(sample))
        present = torch.zeros(len(self.names), dtype=torch.bool)
        present[torch.from_numpy(labels)] = True
        return present

    def _check_classes(self, labels: np.ndarray, key: Any) -> None:
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
            raise ValueError(
                f"The labels of {key!r} have the class {labels.max()}, but {self.dataset_name!r} "
                f"has {len(self.names)} classes, 0 to {len(self.names) - 1}. Fix the records, or "
                "the class names in the metadata."
            )

    def check_ground_truth(self) -> None:
        """Raise an error now if the categories of json files will be none of the classes."""
        for key, record in self.ground_truth.records.items():
            if record and isinstance(next(iter(record.values())), list):
                self._check_classes(np.asarray(self._labels_of(record), np.int64), key)

    def _labels_of(self, record: dict) -> Sequence[int]:
        """The categories present, in any order, also repeated."""
        key = next(iter(record))  # GroundTruth keeps the order of its keys
        if key == "sem_seg_file_name":
            return self._labels_in(record[key])
        if isinstance(record[key], PersonLabels):
            return record[key].classes()
        return [entry["category_id"] for entry in record[key]]

    def _labels_in(self, path: str) -> np.ndarray:
        labels = present_values(read_label_map(path, self.metadata))
        return labels[labels != self.metadata.get("ignore_label", 255)]

    def evaluate(self) -> dict | None:
        seen = comm.gather(self.seen)
        own = None
        if self.scores:
            own = tuple(map(torch.cat, (self.scores, self.present))) + (
                torch.stack(self.measures),
                self.ranks,
            )
        parts = [part for part in comm.gather(own) if part is not None]
        if not comm.is_main_process():
            return None
        if not parts:
            raise ValueError("The ranking cannot be evaluated: the model has predicted no image.")
        check_once(sum(seen, []), self.dataset_name)
        *columns, ranks = zip(*parts, strict=True)
        scores, present, measures = map(torch.cat, columns)
        ap = [
            class_ap(*part)
            for part in zip(
                scores.split(CLASSES_AT_ONCE, 1), present.split(CLASSES_AT_ONCE, 1), strict=True
            )
        ]
        ap = 100 * torch.cat(ap).double()
        lrap, recall, precision, k = measures.double().nanmean(0).tolist()
        metrics = {"mAP": ap.nanmean().item(), "LRAP": 100 * lrap}
        metrics |= {"recall@k": 100 * recall, "precision@k": 100 * precision, "k": k}
        self._write(metrics, ap.tolist(), present, sum(ranks))
        if self.output_folder:
            write_json(self.output_folder, "multilabel_calibration",
                       reliability(scores, present).to_json(), indent=1)  # fmt: skip
        logger.info("ranking of the categories\n%s", text_table([metrics]))
        names = [f"AP-{name}" for name in self.names]
        return {"multilabel": metrics | dict(zip(names, ap.tolist(), strict=True))}

    def _write(self, metrics: dict, ap: list[float], present: Tensor, ranks: Tensor) -> None:
        """Write a table of classes, and one of ranks: what a κ of so many finds."""
        images = present.sum(0).tolist()
        rows = [
            {"id": i, "class": name, "AP": ap[i], "images": images[i]}
            for i, name in enumerate(self.names)
        ]
        write_tables(self.output_folder, "multilabel", metrics, rows)
        (labels, shares), numbers = ranks, torch.arange(1, len(self.names) + 1)
        found = labels.cumsum(0)
        columns = {
            "rank": numbers,
            "labels": labels.long(),
            "found_up_to_here": 100 * found / found[-1],
            "recall": 100 * shares.cumsum(0) / present.any(1).sum(),
            "precision": 100 * found / (numbers * len(present)),
        }
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        rows = [dict(zip(columns, row, strict=True)) for row in values]
        write_tables(self.output_folder, "multilabel_ranks", {}, rows)


class VideoMultiLabelEvaluator(MultiLabelEvaluator):
    """The same for videos; a category is present if it is in any frame."""

    @staticmethod
    def keys(task: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((VIDEO_LABEL_KEYS[task], *VIDEO_LABEL_KEYS.values())))

    def _labels_of(self, record: dict) -> Sequence[int]:
        if next(iter(record)) == "sem_seg_file_names":
            return np.concatenate([self._labels_in(path) for path in record["sem_seg_file_names"]])
        return [entry["category_id"] for frame in record["annotations"] for entry in frame]
