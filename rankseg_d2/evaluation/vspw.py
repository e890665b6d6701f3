"""Video semantic segmentation: mIoU over all frames, and VSPW's video consistency."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from ..data.formats.label_images import read_values, to_classes
from ..modeling.results.reading import kept_categories, label_maps
from ..modeling.video import LabelWriter
from ..tables import text_table, write_tables
from .checks import check_complete, check_files, check_size
from .ground_truth import GroundTruth
from .semantic import SemanticEvaluator
from .video_consistency import Consistency

logger = logging.getLogger(__name__)

CLIPS = (8, 16)  # frames


class VideoSemanticEvaluator(SemanticEvaluator):
    """{"sem_seg": SemanticEvaluator's, VC8, VC8_corrected, VC16, VC16_corrected}, in percent.

    The confusion matrix counts all frames of all videos; fwIoU is VSPW's weighted IoU.
    `video_consistency` defines the two kinds of VC. Frames are read one by one.
    """

    def __init__(
        self, dataset_name: str, output_folder: str | None = None, save_predictions: bool = False
    ):
        """
        Args:
            output_folder: where tables and confusion matrix go; None writes no files.
            save_predictions: also write label PNGs for the server:
                sem_seg_predictions/<video>/<frame>.png, classes from 0. For a split without public
                labels they are always written, and nothing else.
        """
        super().__init__(dataset_name, output_folder)
        self.save_labels = save_predictions
        self.metadata = MetadataCatalog.get(dataset_name)
        self.ground_truth = GroundTruth(dataset_name, ("sem_seg_file_names",))

    @cached_property
    def has_labels(self) -> bool:
        return any(self.ground_truth.records.values())

    def reset(self) -> None:
        super().reset()
        self.videos = []

    def check_ground_truth(self) -> None:
        """Raise an error now if label files are missing."""
        records = self.ground_truth.records.values()
        paths = (path for record in records for path in record.get("sem_seg_file_names", ()))
        check_files(paths, self.dataset_name)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            labels = label_maps(output)
            _check_length(sample, len(labels), sample["file_names"])
            video = {"video": sample["video_id"], "frames": len(labels)}
            if self.has_labels:
                paths = self.ground_truth.find(sample)["sem_seg_file_names"]
                _check_length(sample, len(labels), paths)
                video |= self._compare(labels, paths, sample, kept_categories(output))
            if self.output_folder and (self.save_labels or not self.has_labels):
                write = LabelWriter(os.path.join(self.output_folder, "sem_seg_predictions"))
                for frame, one in enumerate(labels):
                    write(sample, frame, one)
            self.videos.append(video)

    def _compare(
        self,
        labels: Sequence[np.ndarray],
        paths: list[str],
        sample: dict,
        kept: np.ndarray | None,
    ) -> dict:
        """Add the frames to the confusion matrix; (sum, number) of clips for each kind of VC."""
        consistency = Consistency(CLIPS, self.ignore)
        for path, predicted in zip(paths, labels, strict=True):
            values = read_values(path, self.metadata, predicted.shape[-2:])
            check_size(path, values, predicted, f"a frame of video {sample['video_id']!r}")
            classes = to_classes(values, path, self.metadata)
            self.add(self.causes(classes, predicted, path, kept))
            consistency.add(values, classes, predicted)
        return consistency.totals()

    def evaluate(self) -> dict | None:
        videos = comm.gather(self.videos)
        results = super().evaluate() if self.has_labels else {}
        if not comm.is_main_process():
            return None
        videos = sum(videos, [])
        seen = (video["video"] for video in videos)
        check_complete(seen, self.ground_truth.records, self.dataset_name, "video")
        if not self.has_labels:
            logger.warning("%s has no labels: mIoU and VC are not computed", self.dataset_name)
            return {}
        names = list(Consistency(CLIPS, self.ignore).clips)
        metrics = {name: _percent([video[name] for video in videos]) for name in names}
        table = [video | {name: _percent([video[name]]) for name in names} for video in videos]
        write_tables(self.output_folder, "video_consistency", metrics, table)
        logger.info("video consistency\n%s", text_table([metrics]))
        return {"sem_seg": results["sem_seg"] | metrics}


def _check_length(sample: dict, length: int, expected: list[str]) -> None:
    if length != len(expected):
        raise ValueError(
            f"The prediction for video {sample['video_id']!r} has {length} frames, but the video "
            f"has {len(expected)}, from {expected[0]} on. Predict each frame of it, in order."
        )


def _percent(totals: list[tuple[float, int]]) -> float:
    """The mean over the clips of all videos, from a sum and a number for each video."""
    total, count = map(sum, zip(*totals, strict=True))
    return 100 * total / count if count else float("nan")
