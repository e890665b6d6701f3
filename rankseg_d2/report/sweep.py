"""One pass over a validation set that evaluates a ranking model at many κ and thresholds.

The network runs once for each image. For each choice the same outputs are then ranked, classified
and made into results, which go to evaluators of that choice alone. So the metrics are those of a
separate evaluation, and memory grows with the choices only by what their evaluators keep.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluators, inference_context
from torch import nn
from tqdm import tqdm

from ..engine import build_test_loader
from ..engine.trainer import changed
from ..evaluation import MultiLabelEvaluator, build_evaluator
from ..evaluation.ground_truth import LabelMaps, ThingMaps
from ..modeling.passes import in_passes
from ..modeling.passes.several import run_pass
from ..modeling.results.reading import predicted_labels
from ..ranking import Ranker, image_shares, precision_at_k, recall_at_k
from .image_scores import ImageScores

Results = dict[str, dict[str, float]]  # task -> metric -> value, as `Trainer.test` gives it


class Choice(NamedTuple):
    """Which categories are kept: the options of a `Ranker`."""

    topk: int
    threshold: float | None = None
    oracle: bool = False  # those that are present

    def ranker(self, ranker: Ranker) -> Ranker:
        threshold = None if self.oracle else self.threshold
        return replace(ranker, topk=self.topk, threshold=threshold, oracle=self.oracle)


def sweep(
    cfg: CfgNode, model: nn.Module, choices: Sequence[Choice]
) -> tuple[ImageScores, dict[Choice, Results]]:
    """Scores of all images, and for each choice the results that a separate evaluation gives.

    "multilabel" is computed from the scores, without an evaluator for each choice. The results have
    two tasks more. "pixels": the recall is the share of an image's labelled pixels whose category
    is kept, the precision the share of its predicted pixels whose category is present; both are
    means over the images, in percent. "time": the median milliseconds of the network and the
    results. The first choice must not be the oracle.
    """
    (dataset,) = cfg.DATASETS.TEST
    passes = in_passes(cfg, model)
    cfg = changed(changed(cfg, "TEST.PICTURES", 0), "TEST.SAVE_PREDICTIONS", False)
    if cfg.TEST.AUG.ENABLED:
        cfg = changed(cfg, "INPUT.MIN_SIZE_TEST", 0)  # as `Trainer.test` does
    loader = build_test_loader(cfg, dataset)
    with tempfile.TemporaryDirectory() as folder:  # the tables of each choice are not kept
        state = _Sweep(cfg, dataset, folder, model.ranker, choices)
        with inference_context(passes), torch.no_grad():
            for batch in tqdm(loader, desc=dataset, unit="images"):
                for sample in batch:
                    state.add(sample, passes)
        with _without_tables():
            images = state.images()
            return images, state.results(images)


class _Sweep:
    """What is kept of the images so far."""

    def __init__(
        self, cfg: CfgNode, dataset: str, folder: str, ranker: Ranker, choices: Sequence[Choice]
    ):
        self.dataset, self.ranker = dataset, ranker
        self.evaluators = {}
        for choice in choices:
            self.evaluators[choice], self.multilabel = _evaluators(cfg, dataset, folder)
        is_thing = self.multilabel.ground_truth.keys[0] == "annotations"
        self.labels = (ThingMaps if is_thing else LabelMaps)(dataset)
        self.pixels: list[np.ndarray] = []
        self.precision: dict[Choice, list[float]] = {choice: [] for choice in choices}
        self.network_seconds: list[float] = []
        self.result_seconds: dict[Choice, list[float]] = {choice: [] for choice in choices}

    def add(self, sample: dict, model: nn.Module) -> None:
        """Evaluate all choices on an image."""
        one, seconds = _timed(lambda: run_pass(model, sample))
        self.network_seconds.append(seconds)
        self.pixels.append(self._count_pixels(sample))
        for number, (choice, evaluator) in enumerate(self.evaluators.items()):
            scores, ranker = one.scores, choice.ranker(self.ranker)
            if choice.oracle:
                scores = self.multilabel.present[-1].to(scores)
            result, seconds = _timed(lambda: one.result(ranker.rank(scores)))  # noqa: B023
            self.result_seconds[choice].append(seconds)
            if number == 0:
                self.multilabel.process([sample], [result])
            evaluator.process([sample], [result])
            predicted, _ = predicted_labels(result, self.num_classes)
            counts = np.bincount(predicted.ravel(), minlength=self.num_classes)[: self.num_classes]
            right = counts @ self.multilabel.present[-1][0].numpy()
            self.precision[choice].append(right / counts.sum() if counts.any() else np.nan)

    @property
    def num_classes(self) -> int:
        return len(self.multilabel.names)

    def _count_pixels(self, sample: dict) -> np.ndarray:
        """The number of pixels of each category in the ground truth: (C,)."""
        labels, _ = self.labels.read(sample)
        labels = labels[labels != self.labels.ignore]
        return np.bincount(labels, minlength=self.num_classes)[: self.num_classes]

    def images(self) -> ImageScores:
        found = self.multilabel
        return ImageScores(
            self.dataset,
            tuple(found.names),
            tuple(map(str, found.seen)),
            self.ranker.topk,
            torch.cat(found.scores),
            torch.cat(found.present),
            torch.from_numpy(np.stack(self.pixels)).long(),
        )

    def results(self, images: ImageScores) -> dict[Choice, Results]:
        common = self.multilabel.evaluate()["multilabel"]
        results = {}
        for choice, evaluator in self.evaluators.items():
            categories, pixels = kept_shares(images, choice.ranker(self.ranker))
            pixels["precision"] = 100 * _nanmean(self.precision[choice])
            seconds = map(statistics.median, (self.network_seconds, self.result_seconds[choice]))
            own = {"multilabel": common | categories, "pixels": pixels}
            own["time"] = {"ms": 1000 * sum(seconds)}
            results[choice] = (evaluator.evaluate() or {}) | own
        return results


def kept_shares(images: ImageScores, ranker: Ranker) -> tuple[dict[str, float], dict[str, float]]:
    """recall@k, precision@k and k of the categories, and the recall of the pixels."""
    ranking = ranker.rank(images.present.float() if ranker.oracle else images.scores)
    valid = ranking.valid
    if valid is None:
        valid = torch.ones_like(ranking.index, dtype=torch.bool)
    shares = image_shares(images.present, images.pixels)  # (N, C)
    recall = recall_at_k(ranking, images.present)
    pixel_recall = (shares.gather(1, ranking.index) * valid).sum(1)[shares.sum(1) > 0]
    means = {
        "recall@k": 100 * recall.double().nanmean().item(),
        "precision@k": 100 * precision_at_k(ranking, images.present).double().nanmean().item(),
        "k": valid.sum(1).double().mean().item(),
    }
    return means, {"recall": 100 * pixel_recall.mean().item()}


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What the function returns, and its seconds."""
    start = time.perf_counter()
    found = function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return found, time.perf_counter() - start


def _nanmean(values: list[float]) -> float:
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else np.nan


def _evaluators(
    cfg: CfgNode, dataset: str, folder: str
) -> tuple[DatasetEvaluators, MultiLabelEvaluator]:
    """The evaluators of a data set, and that of the ranking for itself."""
    built = build_evaluator(cfg, dataset, folder)
    parts = getattr(built, "_evaluators", [built])
    ranking = next((part for part in parts if isinstance(part, MultiLabelEvaluator)), None)
    if ranking is None:
        raise ValueError(
            f"{dataset!r} has no labels that a ranking can be compared with; choose a validation "
            "set with labels, by DATASETS.TEST."
        )
    others = DatasetEvaluators([part for part in parts if part is not ranking])
    others.reset()
    return others, ranking


@contextmanager
def _without_tables() -> Iterator[None]:
    """Evaluators log their tables; those of all choices would fill pages."""
    logger = logging.getLogger("rankseg_d2.evaluation")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
