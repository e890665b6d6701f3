"""A sheet of pictures: image, ground truth, predictions, and the ranking of the categories."""

import contextlib
import logging
import os
from collections.abc import Iterator

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.image_files import read_rgb
from ..drawing import (
    CELL,
    INK,
    MISSED,
    Row,
    draw_list,
    fit_into,
    lines_in,
    sheet,
    tinted,
)
from ..files import write_image
from ..modeling.results.reading import label_map, predicted_labels
from .class_maps import ClassMaps

logger = logging.getLogger(__name__)

_COLORS = "green: present, red: absent, orange: missed"
_SEMANTIC = "sem_seg_labels", "sem_seg", "sem_seg_scores"
LINES = lines_in(CELL[0])

Prediction = tuple[np.ndarray, np.ndarray | None]  # classes (H, W), segment or track ids (H, W)


class PictureSheet(DatasetEvaluator):
    """Writes sheet.png with the first images of the main process; adds no metric.

    Segments and, where the results have both, the semantic map stand beside each other, over the
    image. An error in it is a warning, since an evaluation must not end for its pictures.

    Names of categories have the category's colour before them. They are green if present, red if
    absent, and orange if present but neither kept nor, without a ranking, predicted.
    """

    def __init__(self, dataset_name: str, output_folder: str, count: int):
        self.metadata = MetadataCatalog.get(dataset_name)
        self.dataset_name = dataset_name
        self.maps = self.class_maps()
        self.names, self.colors = self.maps.names, self.maps.colors
        self.file = os.path.join(output_folder, "sheet.png")
        self.count = count
        self.reset()

    def class_maps(self) -> ClassMaps:
        """The ground truth of the data set."""
        return ClassMaps(self.dataset_name)

    def reset(self) -> None:
        self.rows = []
        self.works = comm.is_main_process()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if not self.works or len(self.rows) >= self.count:
            return
        with self._warning():
            for sample, output in zip(inputs, outputs, strict=True):
                if len(self.rows) < self.count:
                    self.rows += self.rows_of(sample, output)[: self.count - len(self.rows)]

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        """A warning of an error, after which nothing more is drawn."""
        try:
            yield
        except Exception as error:  # whatever it is
            self.works = False
            logger.warning("%s cannot be made: %s: %s", self.file, type(error).__name__, error)

    def rows_of(self, sample: dict, output: dict) -> list[list[np.ndarray]]:
        """The rows of an image: one."""
        predicted, ids = predicted_labels(output, len(self.names))
        predictions = [(predicted, ids)]
        if ids is not None and output.keys() & set(_SEMANTIC):
            predictions.append((label_map(output), None))
        ground_truth = self.maps.ground_truth(sample)
        lines = category_lines(output, ground_truth, predicted, self.names, self.colors)
        return [self.row(sample["file_name"], ground_truth, predictions, lines)]

    def row(
        self,
        file_name: str,
        ground_truth: np.ndarray,
        predictions: list[Prediction],
        lines: list[Row],
    ) -> list[np.ndarray]:
        """Image, ground truth, predictions and lines of text, each in a cell (H, W, 3)."""
        image = read_rgb(file_name)
        pictures = [image, tinted(image, ground_truth, self.colors)]
        pictures += [tinted(image, labels, self.colors, ids) for labels, ids in predictions]
        pictures += [draw_list(lines, height=CELL[0], width=CELL[1])]
        return [fit_into(picture, *CELL) for picture in pictures]

    def evaluate(self) -> None:
        if not self.rows:
            return
        with self._warning():
            os.makedirs(os.path.dirname(self.file), exist_ok=True)
            predictions = ["prediction"] if len(self.rows[0]) == 4 else ["segments", "classes"]
            titles = ["image", "ground truth", *predictions, _COLORS]
            write_image(self.file, sheet(self.rows, titles))
            logger.info("pictures of %d images: %s", len(self.rows), self.file)


def category_lines(
    output: dict,
    ground_truth: np.ndarray,
    predicted: np.ndarray,
    names: list[str],
    colors: np.ndarray,
    most: int = LINES,
) -> list[Row]:
    """The kept categories with their probability, then the missed ones; a title first.

    Without a ranking: of the predicted categories, with their share of the image. At `most` so many
    lines, unless more are missed.
    """
    present = np.unique(ground_truth[(ground_truth >= 0) & (ground_truth < len(names))])
    if "ranking" in output:
        ranked = output["ranking"]["classes"].cpu().numpy()
        scores = output["ranking"]["scores"].float().sigmoid().cpu().numpy()
        title = f"the best of {len(ranked)} ranked"
    else:
        known = predicted[(predicted >= 0) & (predicted < len(names))]
        ranked, counts = np.unique(known, return_counts=True)
        scores = np.bincount(ranked, counts, len(names)) / predicted.size
        ranked = ranked[np.argsort(-counts)]
        title = "predicted, by area"
    missed = [Row(f"missed: {names[i]}", colors[i], ink=MISSED) for i in present if i not in ranked]
    best = ranked[: max(most - 1 - len(missed), 1)]
    return [
        Row(title, ink=INK),
        *(Row(names[i], colors[i], float(scores[i]), present=bool(i in present)) for i in best),
        *missed,
    ]
