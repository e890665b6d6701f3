"""Panoptic segmentation: PQ, SQ and RQ."""

import logging
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.coco_panoptic import ids_to_colors
from ..data.formats.label_images import read_segment_ids
from ..files import write_image
from ..tables import text_table, unique_names, write_json, write_tables
from .ground_truth.records import check_complete
from .ground_truth.segments import PanopticTruth
from .panoptic_quality import Counts, Segments, count_matches, mean_quality, overlaps, quality

logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """{"panoptic_seg": PQ, SQ, RQ, also of things (PQ_th, …) and stuff (PQ_st, …)}, in percent.

    The numbers are panopticapi's. Each image is compared in the background while the model goes on;
    what is kept are four numbers per class.
    """

    in_background = 4  # images at most

    def __init__(self, dataset_name: str, output_folder: str | None = None, save_predictions=False):
        """
        Args:
            output_folder: for the table of the classes; None: no files.
            save_predictions: write panoptic_predictions.json and a folder of PNG files of that name
                too, in COCO's panoptic format.
        """
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.output_folder = output_folder
        self.save_predictions = save_predictions and output_folder is not None
        self.reset()

    @cached_property
    def truth(self) -> PanopticTruth:
        return PanopticTruth(self.dataset_name)

    def reset(self):
        self.counts = None
        self.comparisons: deque[Future] = deque()
        self.seen, self.predictions = [], []

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            image_id = sample["image_id"]
            if image_id not in self.truth.images:
                raise ValueError(
                    f"the image {image_id!r} is not in the ground truth of {self.dataset_name!r}, "
                    f"whose images are {', '.join(map(repr, list(self.truth.images)[:3]))}, …; "
                    "image_id of records and json must be the same"
                )
            ids, infos = read_prediction(output, self.metadata)
            predicted = Segments.of(infos, [self.row(info, image_id) for info in infos])
            self.comparisons.append(self.threads.submit(self.compare, image_id, ids, predicted))
            self.add_up(self.in_background)
            self.seen.append(image_id)
            if self.save_predictions:
                self.save(image_id, ids, infos)

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(2, "panoptic evaluation")

    def add_up(self, left: int = 0) -> None:
        """Wait for comparisons until so many are left, and raise what went wrong in them."""
        while len(self.comparisons) > left:
            counts = self.comparisons.popleft().result()
            self.counts = counts if self.counts is None else self.counts + counts

    def compare(self, image_id, ids: np.ndarray, predicted: Segments) -> Counts:
        path, true = self.truth.images[image_id]
        true_ids = read_segment_ids(path)
        if true_ids.shape != ids.shape:
            raise ValueError(
                f"{path} has {true_ids.shape[1]} x {true_ids.shape[0]} pixels, but the prediction "
                f"for image {image_id!r} has {ids.shape[1]} x {ids.shape[0]}; check height and "
                "width in the record, and that image and PNG belong together"
            )
        try:
            table = overlaps(true_ids, true.ids, ids, predicted.ids)
        except ValueError as error:
            raise ValueError(
                f"image {image_id!r} ({path}): {error}; each id must be in both"
            ) from error
        empty = predicted.ids[table[:, :-1].sum(0) == 0]
        if len(empty):
            raise ValueError(
                f"the prediction for image {image_id!r} lists the segments "
                f"{', '.join(map(str, empty[:5]))} that have no pixel; leave out empty segments"
            )
        return count_matches(true, predicted, table, len(self.truth.names))

    def row(self, info: dict, image_id) -> int:
        """The class of a predicted segment."""
        category = info["category_id"]
        is_thing = info.get("isthing")
        if is_thing is None:
            is_thing = (True, category) in self.truth.row_of
        row = self.truth.row_of.get((bool(is_thing), category))
        if row is None:
            what = "thing" if is_thing else "stuff"
            raise ValueError(
                f"the prediction for image {image_id!r} has a {what} segment of category "
                f"{category}, which the data set {self.dataset_name!r} does not have; predicted "
                "categories are contiguous ids as the metadata maps them"
            )
        return row

    def save(self, image_id, ids: np.ndarray, infos: list[dict]) -> None:
        name = os.path.splitext(os.path.basename(self.truth.images[image_id][0]))[0] + ".png"
        folder = os.path.join(self.output_folder, "panoptic_predictions")
        os.makedirs(folder, exist_ok=True)
        write_image(os.path.join(folder, name), ids_to_colors(ids))
        own = self.truth.dataset_ids
        segments = [
            {"id": info["id"], "category_id": own[self.row(info, image_id)]} for info in infos
        ]
        self.predictions.append(
            {"image_id": image_id, "file_name": name, "segments_info": segments}
        )

    def evaluate(self):
        self.add_up()
        parts = comm.gather((self.counts, self.seen, self.predictions))
        if not comm.is_main_process():
            return None
        seen = (image_id for _, seen, _ in parts for image_id in seen)
        check_complete(seen, self.truth.images, self.dataset_name)
        counts = sum(
            (counts for counts, _, _ in parts if counts is not None),
            Counts.zero(len(self.truth.names)),
        )
        classes, is_thing = quality(counts), self.truth.is_thing
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
        self.write(metrics, counts, classes, sum((part[2] for part in parts), []))
        rows = [{"": name} | group for name, group in groups.items()]
        logger.info("panoptic segmentation\n%s", text_table(rows))
        return {"panoptic_seg": metrics}

    def write(self, metrics, counts: Counts, classes, predictions) -> None:
        truth = self.truth
        columns = {name: (100 * values).tolist() for name, values in classes.items()}
        for key, values in (("TP", counts.matched), ("FP", counts.wrong), ("FN", counts.missed)):
            columns[key] = values.tolist()
        rows = [
            {"id": truth.dataset_ids[i], "class": name, "isthing": bool(truth.is_thing[i])}
            | {key: values[i] for key, values in columns.items()}
            for i, name in enumerate(unique_names(truth.names))
        ]
        write_tables(self.output_folder, "panoptic_seg", metrics, rows)
        if self.save_predictions:
            predictions = {"annotations": predictions}
            write_json(self.output_folder, "panoptic_predictions", predictions)


def read_prediction(output: dict, metadata) -> tuple[np.ndarray, list[dict]]:
    """Segment ids (H, W), 0 for none, and the segments, of detectron2's `panoptic_seg`.

    Without segments (None) a pixel is category id * label_divisor + instance, -1 for none.
    """
    if "panoptic_seg" not in output:
        raise ValueError(
            f"the model's output has no panoptic_seg, but only {', '.join(output) or 'nothing'}; "
            "set MODEL.MASK_FORMER.TEST.PANOPTIC_ON True, or leave out the panoptic evaluator"
        )
    ids, infos = output["panoptic_seg"]
    ids = ids.to(torch.int32).cpu().numpy()
    if infos is not None:
        return ids, infos
    divisor = metadata.label_divisor
    infos = [
        {"id": label + 1, "category_id": label // divisor}
        for label in np.unique(ids).tolist()
        if label != -1
    ]
    return ids + 1, infos
