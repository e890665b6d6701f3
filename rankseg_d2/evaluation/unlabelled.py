"""Predictions for a data set without labels."""

import logging
from pathlib import Path

import numpy as np
from detectron2.evaluation import DatasetEvaluator

from ..files import inside, write_image
from ..modeling.results.reading import label_map

logger = logging.getLogger(__name__)


class Unlabelled(DatasetEvaluator):
    """{}: no metric, because the data set has no labels.

    Label maps go to sem_seg_predictions/<image>.png if the model predicts them; classes from 0.
    """

    def __init__(self, dataset_name: str, output_folder: str | None, has_label_maps: bool) -> None:
        self.dataset_name = dataset_name
        self.folder = None
        if output_folder is not None and has_label_maps:
            self.folder = Path(output_folder, "sem_seg_predictions")

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if self.folder is None:
            return
        for sample, output in zip(inputs, outputs, strict=True):
            labels = label_map(output)
            name = str(sample.get("image_id", Path(sample["file_name"]).stem))
            path = inside(self.folder, f"{name}.png", "image_id")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, labels.astype(np.uint8 if labels.max() < 2**8 else np.uint16))

    def evaluate(self) -> dict:
        where = f"; the label maps are in {self.folder}" if self.folder else ""
        logger.warning("%s has no labels: no metric is computed%s", self.dataset_name, where)
        return {}
