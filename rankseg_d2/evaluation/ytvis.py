"""Video instance segmentation: average precision and recall of YouTube-VIS."""

import logging
import os
from functools import cached_property

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats import rle
from ..modeling.results.reading import rle_masks
from ..tables import text_table, unique_names, write_json, write_tables
from .checks import check_complete
from .ground_truth import Video, VideoGroundTruth
from .video_overlap import MaskTrack, mean_area, track_overlaps
from .ytvis_ap import Matches, category_metrics, match

logger = logging.getLogger(__name__)


class VideoInstanceEvaluator(DatasetEvaluator):
    """{"segm": AP, AP50, AP75, APs, APm, APl, AR1, AR10, AP-<class>}, in percent.

    The numbers are those of YouTube-VIS' public script. The ground truth is the metadata's
    `json_file` or, without one, the annotations of the records. Each video is compared as soon as
    it is predicted; masks are kept only for the result file.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, save_predictions: bool = False
    ):
        """
        Args:
            output_folder: where the table of classes and the result file go; None writes no files.
            save_predictions: also write results.json, the file for the server. For a split without
                public ground truth it is always written, and nothing else.
        """
        self.dataset_name = dataset_name
        self.output_folder = output_folder
        self.save_predictions = save_predictions
        self.reset()

    @cached_property
    def ground_truth(self) -> VideoGroundTruth:
        return VideoGroundTruth(self.dataset_name)

    def check_ground_truth(self) -> None:
        """Raise an error now if the json is damaged."""
        self.ground_truth  # noqa: B018

    @property
    def writes_results(self) -> bool:
        wanted = self.save_predictions or not self.ground_truth.has_objects
        return wanted and self.output_folder is not None

    def reset(self) -> None:
        self.seen, self.rows = [], []
        self.matches: list[tuple[int, object, Matches]] = []  # with category and video id

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            tracks = rle_masks(output)
            video_id = sample["video_id"]
            video = self.ground_truth.find(video_id)
            scores, classes = (
                torch.as_tensor(output[key]).cpu().numpy() for key in ("pred_scores", "pred_labels")
            )
            self._check(video_id, video, classes, tracks)
            self.seen.append(video_id)
            if self.ground_truth.has_objects:
                matches = _compare(video, scores, classes, tracks)
                self.matches += [(category, video_id, one) for category, one in matches.items()]
            if self.writes_results:
                self.rows += self._result_rows(video_id, scores, classes, tracks)

    def _check(self, video_id, video: Video, classes: np.ndarray, tracks: list[MaskTrack]) -> None:
        """ValueError if the prediction cannot be of that video."""
        what = f"The prediction for video {video_id!r} of {self.dataset_name!r}"
        names = self.ground_truth.names
        if unknown := set(classes.tolist()) - names.keys():
            raise ValueError(
                f"{what} has the category {min(unknown)}, but the data set has {len(names)}, "
                f"{min(names)} to {max(names)}. Evaluate a model with as many classes as the data "
                "set."
            )
        for track in tracks:
            if len(track) != video.length:
                raise ValueError(
                    f"{what} has {len(track)} frames, but the ground truth has {video.length}. "
                    "Predict each frame of the video, in order."
                )
            sizes = {tuple(mask["size"]) for mask in track if mask is not None}
            if wrong := sizes - {video.size}:
                raise ValueError(
                    f"{what} has masks of height and width {wrong.pop()}, but the ground truth "
                    f"says {video.size}. Check height and width in the record."
                )

    def _result_rows(
        self, video_id, scores: np.ndarray, classes: np.ndarray, tracks: list[MaskTrack]
    ) -> list[dict]:
        """The server's format: ids of the data set, RLEs as text, null for an absent object."""
        return [
            {
                "video_id": video_id,
                "category_id": self.ground_truth.dataset_ids[category],
                "score": score,
                "segmentations": [mask and rle.as_text(mask) for mask in track],
            }
            for score, category, track in zip(
                scores.tolist(), classes.tolist(), tracks, strict=True
            )
        ]

    def evaluate(self) -> dict | None:
        parts = comm.gather((self.seen, self.matches, self.rows))
        if not comm.is_main_process():
            return None
        seen, matches, rows = (sum(lists, []) for lists in zip(*parts, strict=True))
        check_complete(seen, self.ground_truth.videos, self.dataset_name, "video")
        if self.writes_results:
            write_json(self.output_folder, "results", rows)
            logger.info("for the server, zip %s", os.path.join(self.output_folder, "results.json"))
        if not self.ground_truth.has_objects:
            logger.warning("%s has no ground truth: AP is not computed", self.dataset_name)
            return {}
        by_category = {category: [] for category in sorted(self.ground_truth.names)}
        for category, _, one in sorted(matches, key=lambda entry: entry[1]):  # in order of videos
            by_category[category].append(one)
        classes = [category_metrics(several) for several in by_category.values()]
        metrics = {name: _nanmean([100 * each[name] for each in classes]) for name in classes[0]}
        names = unique_names([self.ground_truth.names[category] for category in by_category])
        table = [
            {"id": self.ground_truth.dataset_ids[category], "class": name}
            | {key: 100 * value for key, value in each.items()}
            for category, name, each in zip(by_category, names, classes, strict=True)
        ]
        write_tables(self.output_folder, "segm", metrics, table)
        logger.info("video instances\n%s", text_table([metrics]))
        return {"segm": metrics | {f"AP-{row['class']}": row["AP"] for row in table}}


def _compare(
    video: Video, scores: np.ndarray, classes: np.ndarray, tracks: list[MaskTrack]
) -> dict[int, Matches]:
    """The matches of the D detections of each category that is present or predicted."""
    true_classes = np.array([one.category for one in video.objects], int)  # (G,)
    crowd = np.array([one.crowd for one in video.objects], bool)
    same = classes[:, None] == true_classes
    true_tracks = [one.track for one in video.objects]
    overlaps = track_overlaps(tracks, true_tracks, same, video.length)
    iou, areas, true_areas = overlaps.iou(), mean_area(overlaps.first), video.areas(overlaps.second)
    result = {}
    for category in {*classes.tolist(), *true_classes.tolist()}:
        own, true = classes == category, true_classes == category
        result[category] = match(
            scores[own], areas[own], iou[np.ix_(own, true)], true_areas[true], crowd[true]
        )
    return result


def _nanmean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
