"""The images on which a model does worst and best, with their ground truth and prediction."""

import logging
import os
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.image_files import read_rgb
from ..files import write_image
from ..modeling.results.reading import kept_categories, predicted_labels
from ..tables import write_json
from .background import Background
from .class_maps import ClassMaps
from .ground_truth import image_key
from .overlap import joint_runs

logger = logging.getLogger(__name__)

FOLDER, FILE = "examples", "examples"
SIDE = 640  # pixels of the longer side of what is stored
_MOST_CATEGORIES = 40  # of a ranked list


class Example(NamedTuple):
    """An image with its maps, small; `true` and `predicted` have C where no category is."""

    score: float  # mean IoU of the categories in the image, in percent
    key: str
    image: np.ndarray  # (h, w, 3)
    true: np.ndarray  # (h, w)
    predicted: np.ndarray  # (h, w)
    ranked: list[tuple[int, float]]  # categories with their probability, those that were kept
    missed: list[int]  # categories that are present, but were not kept


class Examples(DatasetEvaluator):
    """Writes examples/ and examples.json, with the worst and the best images; adds no metric.

    An error in it is a warning, since an evaluation must not end for its pictures.
    """

    def __init__(self, dataset_name: str, output_folder: str, count: int):
        """
        Args:
            count: the number of the worst images, and of the best ones.
        """
        self.dataset_name, self.output_folder, self.count = dataset_name, output_folder, count
        self.maps = ClassMaps(dataset_name)
        self.reset()

    def reset(self) -> None:
        self.worst: list[Example] = []
        self.best: list[Example] = []
        self.background = Background(self._keep, threads=1)
        self.works = True

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            predicted, _ = predicted_labels(output, len(self.maps.names))
            ranking = None
            if (kept := kept_categories(output)) is not None:
                scores = output["ranking"]["scores"].float().sigmoid().cpu().numpy()
                ranking = kept, scores[kept]
            sample = {key: value for key, value in sample.items() if key != "image"}
            self.background.submit(self._compare, sample, predicted, ranking)

    def _compare(self, sample: dict, predicted: np.ndarray, ranking: Any) -> Example | None:
        """The example; without pictures if it is neither among the worst nor the best ones."""
        if not self.works:
            return None
        try:
            return self._example(sample, predicted, ranking)
        except Exception as error:  # whatever it is
            self._give_up(error)
            return None

    def _example(self, sample: dict, predicted: np.ndarray, ranking: Any) -> Example | None:
        true = self.maps.ground_truth(sample)
        score = image_score(true, predicted, len(self.maps.names))
        if np.isnan(score) or not self._is_wanted(score):
            return None
        image = shrunk(read_rgb(sample["file_name"]))
        size = image.shape[1::-1]
        maps = [
            cv2.resize(one.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST_EXACT)
            for one in (true, predicted)
        ]
        ranked, missed = [], []
        if ranking is not None:
            kept, chances = ranking
            present = np.unique(true[true < len(self.maps.names)])
            missed = np.setdiff1d(present, kept).tolist()
            ranked = list(zip(kept.tolist(), np.round(chances, 5).tolist(), strict=True))
        return Example(
            score, str(image_key(sample)), image, *maps, ranked[:_MOST_CATEGORIES], missed
        )

    def _is_wanted(self, score: float) -> bool:
        if min(len(self.worst), len(self.best)) < self.count:
            return True
        return score < self.worst[-1].score or score > self.best[-1].score

    def _keep(self, example: Example | None) -> None:
        if example is not None:
            self.worst = first_of([*self.worst, example], self.count)
            self.best = first_of([*self.best, example], self.count, best=True)

    def _give_up(self, error: Exception) -> None:
        self.works = False
        folder = os.path.join(self.output_folder, FOLDER)
        logger.warning("%s cannot be made: %s: %s", folder, type(error).__name__, error)

    def evaluate(self) -> None:
        self.background.finish()
        parts = comm.gather((self.worst, self.best))
        if not comm.is_main_process():
            return
        worst, best = (sum((part[n] for part in parts), []) for n in range(2))
        worst = first_of(worst, self.count)
        shown = {example.key for example in worst}
        best = first_of([one for one in best if one.key not in shown], self.count, best=True)
        if self.works and worst:
            try:
                self._write(worst, best)
            except OSError as error:
                self._give_up(error)

    def _write(self, worst: list[Example], best: list[Example]) -> None:
        folder = os.path.join(self.output_folder, FOLDER)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier evaluation
        os.makedirs(folder)
        dtype = np.uint8 if len(self.maps.names) < 256 else np.uint16
        entries = []
        for kind, examples in (("worst", worst), ("best", best)):
            for number, one in enumerate(examples):
                name = f"{kind}_{number:02}"
                write_image(os.path.join(folder, f"{name}.jpg"), one.image, quality=88)
                for what in ("true", "predicted"):
                    path = os.path.join(folder, f"{name}_{what}.png")
                    write_image(path, getattr(one, what).astype(dtype))
                own = {"file": name, "kind": kind, "key": one.key, "score": one.score}
                entries.append(own | {"ranked": one.ranked, "missed": one.missed})
        content = {
            "classes": list(self.maps.names),
            "colors": self.maps.colors.tolist(),
            "images": entries,
        }
        write_json(self.output_folder, FILE, content)


def image_score(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """The mean IoU of the categories in an image, in percent, of maps (H, W); NaN without any."""
    true, predicted, lengths = joint_runs(true, predicted)
    known = true < num_classes
    true, predicted, lengths = true[known], predicted[known], lengths[known]
    hit = true == predicted
    count = num_classes + 1
    true_pixels = np.bincount(true, lengths, count)
    hits = np.bincount(true[hit], lengths[hit], count)
    union = true_pixels + np.bincount(predicted, lengths, count) - hits
    present = true_pixels > 0
    return 100 * float((hits[present] / union[present]).mean()) if present.any() else np.nan


def first_of(examples: Iterable[Example], count: int, best: bool = False) -> list[Example]:
    """The `count` worst or best examples, that one first; of equal scores by their key."""
    sign = -1 if best else 1
    return sorted(examples, key=lambda one: (sign * one.score, one.key))[:count]


def shrunk(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image (H, W, 3) whose longer side is at most `side`."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(1, round(scale * length)) for length in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
