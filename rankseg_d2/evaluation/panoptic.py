"""Panoptic segmentation: PQ, SQ and RQ."""

import logging
import os
from functools import cached_property

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.coco_panoptic import ids_to_colors
from ..data.formats.label_images import read_segment_ids
from ..files import write_image
from ..modeling.results.reading import kept_categories, panoptic_segments
from ..tables import text_table, unique_names, write_json, write_tables
from .background import Background
from .checks import check_complete, check_files, check_known, check_size
from .error_split import SegmentSplit, segment_counts, write_split
from .ground_truth import PanopticGroundTruth
from .panoptic_quality import Counts, Segments, mean_quality, overlaps, quality

logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """{"panoptic_seg": PQ, SQ, RQ, also of things (PQ_th, …) and stuff (PQ_st, …)}, in percent.

    The numbers are panopticapi's. Threads compare the images while the model runs; four numbers
    per class are kept.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, save_predictions: bool = False
    ):
        """
        Args:
            output_folder: where the table of classes goes; None writes no files.
            save_predictions: also write panoptic_predictions.json and the PNG files in
                panoptic_predictions/, in COCO's panoptic format.
        """
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.output_folder = output_folder
        self.save_predictions = save_predictions and output_folder is not None
        self.reset()

    @cached_property
    def ground_truth(self) -> PanopticGroundTruth:
        return PanopticGroundTruth(self.dataset_name)

    def check_ground_truth(self) -> None:
        """Raise an error now if the json is damaged or PNG files are missing."""
        check_files((path for path, _ in self.ground_truth.images.values()), self.dataset_name)

    def reset(self) -> None:
        self.split = None
        self.background = Background(self._add)
        self.seen, self.predictions = [], []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            image_id = sample["image_id"]
            check_known(image_id, self.ground_truth.images, self.dataset_name)
            ids, infos = panoptic_segments(output, self.metadata.get("label_divisor", 1000))
            predicted = Segments.of(infos, [self._row(info, image_id) for info in infos])
            is_kept = self._rows_of(kept_categories(output))
            self.background.submit(self._compare, image_id, ids, predicted, is_kept)
            self.seen.append(image_id)
            if self.save_predictions:
                self._save(image_id, ids, infos)

    def _add(self, counts: list[Counts]) -> None:
        self.split = self.split or SegmentSplit(len(self.ground_truth.names))
        self.split.add(counts)

    def _rows_of(self, kept: np.ndarray | None) -> np.ndarray | None:
        """Whether each class of the ground truth is among the kept categories: (C,) bool."""
        if kept is None:
            return None
        row_of = self.ground_truth.row_of
        rows = [row_of.get((True, one), row_of.get((False, one))) for one in kept.tolist()]
        is_kept = np.zeros(len(self.ground_truth.names), bool)
        is_kept[[row for row in rows if row is not None]] = True
        return is_kept

    def _compare(
        self, image_id, ids: np.ndarray, predicted: Segments, is_kept: np.ndarray | None
    ) -> list[Counts]:
        path, true = self.ground_truth.images[image_id]
        true_ids = read_segment_ids(path)
        check_size(path, true_ids, ids, f"image {image_id!r}")
        try:
            table = overlaps(true_ids, true.ids, ids, predicted.ids)
        except ValueError as error:
            raise ValueError(
                f"Image {image_id!r} ({path}): {error}. Each id must be in both."
            ) from error
        empty = predicted.ids[table[:, :-1].sum(0) == 0]
        if len(empty):
            raise ValueError(
                f"The prediction for image {image_id!r} lists the segments "
                f"{', '.join(map(str, empty[:5]))} that have no pixel. Leave out empty segments."
            )
        return segment_counts(true, predicted, table, is_kept, len(self.ground_truth.names))

    def _row(self, info: dict, image_id) -> int:
        """The class of a predicted segment."""
        category = info["category_id"]
        is_thing = info.get("isthing")
        if is_thing is None:
            is_thing = (True, category) in self.ground_truth.row_of
        row = self.ground_truth.row_of.get((bool(is_thing), category))
        if row is None:
            what = "thing" if is_thing else "stuff"
            raise ValueError(
                f"The prediction for image {image_id!r} has a {what} segment of category "
                f"{category}, which the data set {self.dataset_name!r} does not have. Predict "
                "contiguous ids, as the metadata maps them."
            )
        return row

    def _save(self, image_id, ids: np.ndarray, infos: list[dict]) -> None:
        name = os.path.splitext(os.path.basename(self.ground_truth.images[image_id][0]))[0] + ".png"
        folder = os.path.join(self.output_folder, "panoptic_predictions")
        os.makedirs(folder, exist_ok=True)
        write_image(os.path.join(folder, name), ids_to_colors(ids))
        own = self.ground_truth.dataset_ids
        segments = [
            {"id": info["id"], "category_id": own[self._row(info, image_id)]} for info in infos
        ]
        self.predictions.append(
            {"image_id": image_id, "file_name": name, "segments_info": segments}
        )

    def evaluate(self) -> dict | None:
        self.background.finish()
        parts = comm.gather((self.split, self.seen, self.predictions))
        if not comm.is_main_process():
            return None
        seen = (image_id for _, seen, _ in parts for image_id in seen)
        check_complete(seen, self.ground_truth.images, self.dataset_name)
        splits = (split for split, _, _ in parts if split is not None)
        split = sum(splits, SegmentSplit(len(self.ground_truth.names)))
        counts = split.counts[0]
        classes, is_thing = quality(counts), self.ground_truth.is_thing
        groups = {
            "All": mean_quality(classes, np.ones_like(is_thing)),
            "Things": mean_quality(classes, is_thing),
            "Stuff": mean_quality(classes, ~is_thing),
        }
        metrics = {
            name + suffix: group[name]
            for suffix, group in zip(("", "_th", "_st"), groups.values(), strict=True)
            for name in ("PQ", "SQ", "RQ")
        }
        self._write(metrics, counts, classes, sum((part[2] for part in parts), []))
        rows = [{"": name} | group for name, group in groups.items()]
        logger.info("panoptic segmentation\n%s", text_table(rows))
        names = unique_names(self.ground_truth.names)
        write_split(self.output_folder, "panoptic_seg", "PQ", split.values(), names)
        return {"panoptic_seg": metrics}

    def _write(
        self,
        metrics: dict[str, float],
        counts: Counts,
        classes: dict[str, np.ndarray],
        predictions: list[dict],
    ) -> None:
        ground_truth = self.ground_truth
        columns = {name: (100 * values).tolist() for name, values in classes.items()}
        for key, values in (("TP", counts.matched), ("FP", counts.wrong), ("FN", counts.missed)):
            columns[key] = values.tolist()
        rows = [
            {
                "id": ground_truth.dataset_ids[i],
                "class": name,
                "isthing": bool(ground_truth.is_thing[i]),
            }
            | {key: values[i] for key, values in columns.items()}
            for i, name in enumerate(unique_names(ground_truth.names))
        ]
        write_tables(self.output_folder, "panoptic_seg", metrics, rows)
        if self.save_predictions:
            predictions = {"annotations": predictions}
            write_json(self.output_folder, "panoptic_predictions", predictions)
