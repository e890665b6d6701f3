"""Human parsing, person by person: AP^p and PCP of MHP, AP^r of CIHP."""

import logging
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats import rle
from ..modeling.results.reading import require
from ..tables import main_metrics, text_table, unique_names, write_json, write_tables
from .checks import check_files, check_once, check_size
from .ground_truth import GroundTruth, image_key
from .part_overlap import (
    AT_50,
    Persons,
    Regions,
    average_precision,
    compare_persons,
    compare_regions,
)

logger = logging.getLogger(__name__)


class ParsingEvaluator(DatasetEvaluator):
    """{"parsing": APp, APp50, PCP50, APr, APr50, APr_corrected, APr50_corrected, APr-<part>}.

    All in percent. AP^p and AP^r are means over the overlaps 0.1 to 0.9. AP^r counts as CIHP's
    script does: all regions that overlap the same ground truth are right; `_corrected`: only the
    first one is. Images are compared as they are predicted.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, save_predictions: bool = False
    ):
        """
        Args:
            output_folder: where the table of parts goes; None writes no files.
            save_predictions: also write parsing_predictions.json: an RLE per part of a person.
        """
        self.dataset_name = dataset_name
        parts = MetadataCatalog.get(dataset_name).get("part_classes")
        if not parts:
            raise ValueError(
                f"The metadata of {dataset_name!r} has no part_classes, the names of the parts "
                "from class 1 on, which the evaluation of human parsing needs. Set them."
            )
        self.names = unique_names(list(parts))
        self.num_classes = len(self.names) + 1  # with background
        self.ground_truth = GroundTruth(dataset_name, ("person_labels",))
        self.output_folder = output_folder
        self.save_predictions = save_predictions
        self.reset()

    def reset(self) -> None:
        self.persons: list[Persons] = []
        self.regions: list[Regions] = []
        self.predictions: list[dict] = []
        self.seen: list = []

    def check_ground_truth(self) -> None:
        """Raise an error now if files of persons are missing."""
        records = self.ground_truth.records.values()
        found = (record["person_labels"] for record in records if record)
        check_files((path for labels in found for path in labels.paths), self.dataset_name)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            require(output, "instances", advice="Set MODEL.MASK_FORMER.TEST.PARSING_ON True.")
            parts, scores, part_scores = self._prediction(output["instances"], sample)
            labels = self.ground_truth.find(sample)["person_labels"]
            true = labels.read()
            if len(parts) and labels.files:  # also of an image without persons
                check_size(str(labels), true.any(0), parts[0], str(image_key(sample)))
            count = self.num_classes
            self.persons.append(compare_persons(parts, scores, true, count))
            self.regions.append(compare_regions(parts, part_scores, true, count))
            self.seen.append(image_key(sample))
            if self.save_predictions:
                self.predictions += self._rows(parts, part_scores, sample)

    def _prediction(
        self, persons: Any, sample: dict
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Part maps (N, H, W), scores (N,) and scores of parts (N, C), best person first."""
        if not persons.has("pred_parts"):
            raise ValueError(
                f"The instances predicted for {image_key(sample)!r} have no pred_parts, the part "
                "of each pixel. Set MODEL.MASK_FORMER.TEST.PARSING_ON True, or give them."
            )
        scores = persons.scores.float().cpu().numpy().astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        parts = persons.pred_parts.cpu().numpy()
        if parts.max(initial=0) >= self.num_classes or parts.min(initial=0) < 0:
            raise ValueError(
                f"The parts predicted for {image_key(sample)!r} go from {parts.min()} to "
                f"{parts.max()}, but {self.dataset_name!r} has 0 (background) to "
                f"{self.num_classes - 1}. Evaluate a model that was trained on its parts."
            )
        if persons.has("part_scores"):
            part_scores = persons.part_scores.float().cpu().numpy().astype(np.float64)
        else:
            part_scores = scores[:, None].repeat(self.num_classes, 1)
        return parts[order], scores[order], part_scores[order]

    def _rows(self, parts: np.ndarray, scores: np.ndarray, sample: dict) -> list[dict]:
        key = image_key(sample)
        return [
            {
                "file_name": key,
                "person": person,
                "category_id": part,
                "score": float(scores[person, part]),
                "segmentation": rle.as_text(rle.encode(one == part)),
            }
            for person, one in enumerate(parts)
            for part in np.unique(one[one > 0]).tolist()
        ]

    def evaluate(self) -> dict | None:
        found = comm.gather((self.persons, self.regions, self.predictions, self.seen))
        if not comm.is_main_process():
            return None
        persons, regions, predictions, seen = (sum(part, []) for part in zip(*found, strict=True))
        check_once(seen, self.dataset_name)
        if not seen:
            raise ValueError("Human parsing cannot be evaluated: the model has predicted no image.")
        metrics = _person_metrics(persons)
        rows = self._part_rows(regions)
        for name in ("APr", "APr50", "APr_corrected", "APr50_corrected"):
            metrics[name] = _mean([row[name] for row in rows])
        write_tables(self.output_folder, "parsing", metrics, rows)
        if self.save_predictions and self.output_folder is not None:
            write_json(self.output_folder, "parsing_predictions", predictions)
        logger.info("human parsing\n%s", text_table([main_metrics(metrics)]))
        return {"parsing": metrics | {f"APr-{row['class']}": row["APr"] for row in rows}}

    def _part_rows(self, regions: list[Regions]) -> list[dict]:
        """A row for each part: its AP^r, in percent, and its true and predicted regions."""
        scores, classes, overlaps, hits = (
            np.concatenate([getattr(one, name) for one in regions])
            for name in ("scores", "classes", "overlaps", "hits")
        )
        num_true = sum(one.num_true for one in regions)
        rows = []
        for part, name in enumerate(self.names, 1):
            own, row = classes == part, {"id": part, "class": name}
            for ending, right in (("", overlaps), ("_corrected", hits)):
                ap = 100 * average_precision(scores[own], right[own], num_true[part])
                row |= {f"APr{ending}": float(ap.mean()), f"APr50{ending}": float(ap[AT_50])}
            counts = {"true_regions": int(num_true[part]), "predicted_regions": int(own.sum())}
            rows.append(row | counts)
        return rows


def _person_metrics(persons: list[Persons]) -> dict[str, float]:
    """AP^p, and PCP at 0.5: the mean over all true persons, 0 of those that are not found."""
    scores = np.concatenate([one.scores for one in persons])
    hits = np.concatenate([one.hits for one in persons])
    correct = np.concatenate([one.correct for one in persons])
    count = sum(one.num_true for one in persons)
    ap = 100 * average_precision(scores, hits, count)
    pcp = 100 * (correct * hits)[:, AT_50].sum() / count if count else np.nan
    return {"APp": float(ap.mean()), "APp50": float(ap[AT_50]), "PCP50": float(pcp)}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
