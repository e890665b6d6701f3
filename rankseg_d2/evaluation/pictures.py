"""A sheet of pictures: image, ground truth, prediction, and the ranking of the categories."""

import logging
import os

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.image_files import read_rgb
from ..files import write_image
from ..modeling.results.reading import predicted_labels
from .ground_truth import LabelMaps, ThingMaps

logger = logging.getLogger(__name__)

CELL = (240, 320)  # height and width of the area for one picture
GAP = 6
LINE_HEIGHT = 17
_LINES = CELL[0] // LINE_HEIGHT
PAPER, INK = (255, 255, 255), (30, 30, 30)
RIGHT, WRONG, MISSED = (20, 120, 40), (190, 40, 30), (190, 110, 0)


class PictureSheet(DatasetEvaluator):
    """Writes sheet.png with the first images of the main process; adds no metric.

    Names of categories are green if present, red if absent, and orange if present but neither kept
    nor, without a ranking, predicted.
    """

    def __init__(self, dataset_name: str, output_folder: str, count: int):
        self.metadata = MetadataCatalog.get(dataset_name)
        if self.metadata.get("stuff_classes"):  # of all classes
            self.kind, self.labels = "stuff", LabelMaps(dataset_name)
        else:
            self.kind, self.labels = "thing", ThingMaps(dataset_name)
        self.names = getattr(self.metadata, f"{self.kind}_classes")
        self.file = os.path.join(output_folder, "sheet.png")
        self.count = count
        self.reset()

    def reset(self) -> None:
        self.rows = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if not comm.is_main_process():
            return
        for sample, output in zip(inputs, outputs, strict=True):
            if len(self.rows) < self.count:
                self.rows.append(self._row(sample, output))

    def _row(self, sample: dict, output: dict) -> np.ndarray:
        """Image, ground truth, prediction and categories side by side: (H, W, 3)."""
        image = read_rgb(sample["file_name"])
        labels, _ = self.labels.read(sample)
        ground_truth = np.where(labels == self.labels.ignore, len(self.names), labels)
        predicted, ids = predicted_labels(output, len(self.names))
        panels = [image, self._colored(ground_truth), self._colored(predicted, ids)]
        text = category_lines(output, ground_truth, predicted, self.names)
        return np.concatenate([*map(_cell, panels), _text_cell(text)], 1)

    def _colored(self, labels: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
        """(H, W) -> (H, W, 3): no class is black, edges between segment ids are white."""
        classes = len(self.names)
        colors = self.metadata.get(f"{self.kind}_colors") or _default_colors(classes)
        picture = np.array([*colors, (0, 0, 0)], np.uint8)[np.minimum(labels, classes)]
        if ids is not None:
            picture[edges_of(ids)] = 255
        return picture

    def evaluate(self) -> None:
        if not self.rows:
            return
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        write_image(self.file, np.concatenate([_header(), *self.rows]))
        logger.info("pictures of %d images: %s", len(self.rows), self.file)


def edges_of(ids: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one above them or to the left: (H, W) bool."""
    edges = np.zeros(ids.shape, bool)
    edges[1:] = ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    return edges


def category_lines(
    output: dict, ground_truth: np.ndarray, predicted: np.ndarray, names: list[str]
) -> list[tuple[str, tuple]]:
    """(text, colour) of the kept categories with their probability, then of the missed ones.

    Without a ranking: of the predicted categories, with their share of the image.
    """
    present = np.unique(ground_truth[ground_truth < len(names)])
    if "ranking" in output:
        ranked = output["ranking"]["classes"].cpu().numpy()
        scores = output["ranking"]["scores"].float().sigmoid().cpu().numpy()
        title = f"the best of {len(ranked)} ranked"
    else:
        ranked, counts = np.unique(predicted[predicted < len(names)], return_counts=True)
        scores = np.bincount(ranked, counts, len(names)) / predicted.size
        ranked = ranked[np.argsort(-counts)]
        title = "predicted, by area"
    missed = [(f"missed: {names[i]}", MISSED) for i in present if i not in ranked]
    best = ranked[: max(_LINES - 1 - len(missed), 1)]
    return [
        (title, INK),
        *((f"{scores[i]:.2f} {names[i]}", RIGHT if i in present else WRONG) for i in best),
        *missed,
    ]


def _default_colors(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(32, 256, (count, 3))


def _cell(picture: np.ndarray) -> np.ndarray:
    """The picture in the middle of a cell, as large as fits."""
    from PIL import Image

    scale = min(CELL[0] / picture.shape[0], CELL[1] / picture.shape[1])
    size = [max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0])]
    resized = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
    paper = Image.new("RGB", (CELL[1] + GAP, CELL[0] + GAP), PAPER)
    paper.paste(resized, ((CELL[1] - size[0]) // 2, (CELL[0] - size[1]) // 2))
    return np.asarray(paper)


def _header() -> np.ndarray:
    legend = "green: present, red: absent, orange: missed"
    titles = ["image", "ground truth", "prediction", legend]
    return np.concatenate([_text_cell([(title, INK)]) for title in titles], 1)[:LINE_HEIGHT]


def _text_cell(lines: list[tuple[str, tuple]]) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    paper = Image.new("RGB", (CELL[1] + GAP, CELL[0] + GAP), PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for number, (text, color) in enumerate(lines[:_LINES]):
        draw.text((GAP, number * LINE_HEIGHT), text, color, font)
    return np.asarray(paper)
