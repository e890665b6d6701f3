"""The ranking of each image's categories: how well it finds those that are there."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from ..data.formats.label_images import present_values, read_label_map
from ..ranking import Ranking
from ..ranking.metrics import (
    class_ap,
    label_ranking_ap,
    precision_at_k,
    rank_histogram,
    recall_at_k,
)
from ..tables import text_table, unique_names, write_tables
from ..tasks import TASKS, VIDEO_LABEL_KEYS
from .ground_truth.records import Truth

logger = logging.getLogger(__name__)

CLASSES_AT_ONCE = 64  # bounds the memory of sorting all images' scores


class MultiLabelEvaluator(DatasetEvaluator):
    """{"multilabel": mAP, LRAP, recall@k, precision@k, k, AP-<class>}, all but k in percent.

    k is how many categories were kept, on average. An image without any category has no recall and
    no LRAP, a category in no image no AP: they are left out of the means. Its precision is 0.

    The categories that are there come from the label map at its native size or, if a record names
    none, from its panoptic segments or its annotations, crowds included. AP of a category needs the
    scores of all images: N x C float32 numbers are kept.
    """

    KEYS = tuple(dict.fromkeys(key for task in TASKS.values() for key in task.present_keys))

    def __init__(
        self,
        dataset_name: str,
        output_folder: str | None = None,
        class_list: str = "stuff_classes",
    ):
        """
        Args:
            output_folder: for the tables of classes and ranks; None: no files.
            class_list: key of the metadata with the names of what the model predicts.
        """
        self.metadata = MetadataCatalog.get(dataset_name)
        self.names = unique_names(getattr(self.metadata, class_list))
        self.truth = Truth(dataset_name, self.KEYS)
        self.output_folder = output_folder
        self.reset()

    def reset(self):
        self.scores, self.present, self.measures, self.ranks = [], [], [], 0

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            if "ranking" not in output:
                raise ValueError(
                    f"the model's output has no ranking, but only {', '.join(output)}; evaluate a "
                    "model with MODEL.RANKSEG.FLAG, or leave out the multi-label evaluator"
                )
            scores = output["ranking"]["scores"].float().cpu()[None]  # (1, C)
            kept = output["ranking"]["classes"].cpu()[None]  # (1, K)
            if scores.shape[1] != len(self.names):
                raise ValueError(
                    f"the model ranks {scores.shape[1]} categories, but the data set has "
                    f"{len(self.names)}; evaluate a model with as many classes as the data set"
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
            self.ranks += rank_histogram(scores, present)
            self.scores.append(scores)
            self.present.append(present)

    def present_categories(self, sample: dict) -> Tensor:
        """Which categories are in the image: (C,) bool."""
        labels = self.labels_of(self.truth.find(sample))
        present = torch.zeros(len(self.names), dtype=torch.bool)
        present[torch.as_tensor(np.asarray(labels, np.int64))] = True
        return present

    def labels_of(self, record: dict) -> Sequence[int]:
        """The categories that are there, in any order."""
        if "sem_seg_file_name" in record:
            return self.labels_in(record["sem_seg_file_name"])
        objects = record.get("segments_info", record.get("annotations"))
        return [entry["category_id"] for entry in objects]

    def labels_in(self, path: str) -> np.ndarray:
        labels = present_values(read_label_map(path, self.metadata))
        return labels[labels != self.metadata.get("ignore_label", 255)]

    def evaluate(self):
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
            raise ValueError("there is no image to evaluate the ranking on")
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
        self.write(metrics, ap.tolist(), present.sum(0).tolist(), sum(ranks))
        logger.info("ranking of the categories\n%s", text_table([metrics]))
        return {"multilabel": metrics | dict(zip(self.ap_names(), ap.tolist(), strict=True))}

    def ap_names(self) -> list[str]:
        return [f"AP-{name}" for name in self.names]

    def write(self, metrics: dict, ap: list[float], images: list[int], ranks: Tensor) -> None:
        """Tables of the classes, and of the ranks: how many labels a larger or smaller k finds."""
        rows = [
            {"id": i, "class": name, "AP": ap[i], "images": images[i]}
            for i, name in enumerate(self.names)
        ]
        write_tables(self.output_folder, "multilabel", metrics, rows)
        found = (100 * ranks.cumsum(0) / ranks.sum()).tolist()
        rows = [
            {"rank": i, "labels": count, "found_up_to_here": share}
            for i, (count, share) in enumerate(zip(ranks.tolist(), found, strict=True), 1)
        ]
        write_tables(self.output_folder, "multilabel_ranks", {}, rows)


class VideoMultiLabelEvaluator(MultiLabelEvaluator):
    """The same for videos: their ranking, and the categories that are in any frame."""

    KEYS = tuple(VIDEO_LABEL_KEYS.values())

    def labels_of(self, record):
        if "sem_seg_file_names" in record:
            return np.concatenate([self.labels_in(path) for path in record["sem_seg_file_names"]])
        return [entry["category_id"] for frame in record["annotations"] for entry in frame]
