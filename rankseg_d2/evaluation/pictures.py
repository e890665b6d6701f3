"""A sheet to look at: image, truth, prediction, and how the categories were ranked."""

import logging
import os

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats import rle
from ..data.formats.painting import paint
from ..files import write_image
from .ground_truth.records import LabelMaps, Truth

logger = logging.getLogger(__name__)

CELL = (240, 320)  # height and width of the space for one picture
GAP = 6
NO_THING = -1  # where a picture has none
LIKELY = 0.5  # instances with a lower score are not shown
LINE_HEIGHT = 17
LINES = CELL[0] // LINE_HEIGHT
PAPER, INK = (255, 255, 255), (30, 30, 30)
RIGHT, WRONG, MISSED = (20, 120, 40), (190, 40, 30), (190, 110, 0)


class PictureSheet(DatasetEvaluator):
    """Writes sheet.png with the first images of the main process; adds no metric.

    Categories are green where they are there, red where they are not, and orange where they are
    there but were not kept, or not predicted.
    """

    def __init__(self, dataset_name: str, output_folder: str, count: int):
        self.metadata = MetadataCatalog.get(dataset_name)
        if self.metadata.get("stuff_classes"):  # of all classes
            self.kind, self.labels = "stuff", LabelMaps(dataset_name)
            self.void = self.metadata.get("ignore_label", 255)
        else:
            self.kind, self.labels, self.void = "thing", ThingMaps(dataset_name), NO_THING
        self.names = getattr(self.metadata, f"{self.kind}_classes")
        self.file = os.path.join(output_folder, "sheet.png")
        self.count = count
        self.reset()

    def reset(self):
        self.rows = []

    def process(self, inputs, outputs):
        if not comm.is_main_process():
            return
        for sample, output in zip(inputs, outputs, strict=True):
            if len(self.rows) < self.count:
                self.rows.append(self.row(sample, output))

    def row(self, sample: dict, output: dict) -> np.ndarray:
        """Image, truth, prediction, categories beside each other: (H, W, 3)."""
        from detectron2.data.detection_utils import read_image

        image = read_image(sample["file_name"], "RGB")
        truth, _ = self.labels.read(sample)
        predicted, edges = predicted_labels(output, len(self.names))
        truth = self.known(truth)
        panels = [image, self.colored(truth), self.colored(predicted, edges)]
        text = category_lines(output, truth, predicted, self.names)
        return np.concatenate([*map(cell, panels), text_cell(text)], 1)

    def known(self, labels: np.ndarray) -> np.ndarray:
        """Labels with the number of classes for void."""
        return np.where(labels == self.void, len(self.names), labels)

    def colored(self, labels: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
        """(H, W) -> (H, W, 3): void is black, edges between segments are white."""
        classes = len(self.names)
        colors = self.metadata.get(f"{self.kind}_colors") or default_colors(classes)
        picture = np.array([*colors, (0, 0, 0)], np.uint8)[np.minimum(labels, classes)]
        if edges is not None:
            picture[edges] = 255
        return picture

    def evaluate(self):
        if not self.rows:
            return
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        write_image(self.file, np.concatenate([header(), *self.rows]))
        logger.info("Pictures of %d images: %s", len(self.rows), self.file)


def predicted_labels(output: dict, num_classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Category of each pixel (H, W), and the edges of segments or things if these are predicted."""
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        ids = ids.cpu().numpy()
        table = np.full(max(ids.max(), *(s["id"] for s in segments), 0) + 1, num_classes)
        for segment in segments:
            table[segment["id"]] = segment["category_id"]
        return table[ids], edges_of(ids)
    if "sem_seg_labels" in output:
        return output["sem_seg_labels"].cpu().numpy(), None
    if "sem_seg" in output:
        return output["sem_seg"].argmax(0).cpu().numpy(), None
    things = output["instances"].to("cpu")
    things = things[things.scores > LIKELY]
    order = things.scores.argsort()  # the surest is painted last
    masks, classes = things.pred_masks[order].numpy(), things.pred_classes[order].numpy()
    ids = paint(masks, range(len(masks)), np.full(masks.shape[1:], NO_THING))
    return np.append(classes, num_classes)[ids], edges_of(ids)


def edges_of(ids: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one above or before them: (H, W) bool."""
    edges = np.zeros(ids.shape, bool)
    edges[1:] = ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    return edges


class ThingMaps:
    """Label maps (H, W) of images of which only things are annotated, small ones over large."""

    def __init__(self, dataset_name: str):
        self.truth = Truth(dataset_name, ("annotations",))

    def read(self, sample: dict) -> tuple[np.ndarray, str]:
        """The label map of the sample's image, and the image's file."""
        size = sample["height"], sample["width"]
        things = self.truth.find(sample)["annotations"]
        masks = [rle.decode(rle.to_rle(thing["segmentation"], *size)) for thing in things]
        order = np.argsort([-mask.sum() for mask in masks])
        masks = np.array(masks, bool).reshape(-1, *size)[order]
        classes = np.array([thing["category_id"] for thing in things], np.int64)[order]
        return paint(masks, classes, np.full(size, NO_THING)), sample["file_name"]


def category_lines(output: dict, truth: np.ndarray, predicted: np.ndarray, names: list[str]):
    """(text, colour) of the best ranked categories with their probability, or of those predicted
    with their share of the image; then those that are missed."""
    there = np.unique(truth[truth < len(names)])
    if "ranking" in output:
        ranked = output["ranking"]["classes"].cpu().numpy()
        scores = output["ranking"]["scores"].float().sigmoid().cpu().numpy()
        title = f"the best of {len(ranked)} ranked"
    else:
        ranked, counts = np.unique(predicted[predicted < len(names)], return_counts=True)
        scores = np.bincount(ranked, counts, len(names)) / predicted.size
        ranked = ranked[np.argsort(-counts)]
        title = "predicted, by area"
    missed = [(f"missed: {names[i]}", MISSED) for i in there if i not in ranked]
    best = ranked[: max(LINES - 1 - len(missed), 1)]
    return [
        (title, INK),
        *((f"{scores[i]:.2f} {names[i]}", RIGHT if i in there else WRONG) for i in best),
        *missed,
    ]


def default_colors(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(32, 256, (count, 3))


def cell(picture: np.ndarray) -> np.ndarray:
    """The picture in the middle of a cell, as large as it fits, with a gap around."""
    from PIL import Image

    scale = min(CELL[0] / picture.shape[0], CELL[1] / picture.shape[1])
    size = [max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0])]
    resized = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
    paper = Image.new("RGB", (CELL[1] + GAP, CELL[0] + GAP), PAPER)
    paper.paste(resized, ((CELL[1] - size[0]) // 2, (CELL[0] - size[1]) // 2))
    return np.asarray(paper)


def header() -> np.ndarray:
    legend = "green: there, red: not there, orange: missed"
    titles = ["image", "truth", "prediction", legend]
    return np.concatenate([text_cell([(title, INK)]) for title in titles], 1)[:LINE_HEIGHT]


def text_cell(lines: list[tuple[str, tuple]]) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    paper = Image.new("RGB", (CELL[1] + GAP, CELL[0] + GAP), PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for number, (text, color) in enumerate(lines[:LINES]):
        draw.text((GAP, number * LINE_HEIGHT), text, color, font)
    return np.asarray(paper)
