"""Video semantic segmentation: mIoU over all frames, and VSPW's video consistency."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from ..data.formats.label_images import read_values, to_classes
from ..modeling.results.reading import label_maps
from ..modeling.video import LabelWriter
from ..tables import text_table, write_tables
from .ground_truth.records import Truth, check_complete
from .semantic import SemanticEvaluator, size_text
from .video_consistency import Consistency

logger = logging.getLogger(__name__)

CLIPS = (8, 16)  # frames


class VideoSemanticEvaluator(SemanticEvaluator):
    """{"sem_seg": SemanticEvaluator's, VC8, VC8_corrected, VC16, VC16_corrected}, in percent.

    The confusion matrix is that of all frames of all videos; fwIoU is VSPW's weighted IoU. What the
    two kinds of VC are is said in `video_consistency`. A video is taken in frame by frame.
    """

    def __init__(self, dataset_name: str, output_folder: str | None = None, save_predictions=False):
        """
        Args:
            output_folder: for the tables and the confusion matrix; None: no files.
            save_predictions: write label PNGs too, as the server wants them:
                sem_seg_predictions/<video>/<frame>.png, classes from 0; where a split's labels are
                not public, they are all there is.
        """
        super().__init__(dataset_name, output_folder)
        self.save_labels = save_predictions
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.truth = Truth(dataset_name, ("sem_seg_file_names",))

    @cached_property
    def has_labels(self) -> bool:
        return any(self.truth.records.values())

    def reset(self):
        super().reset()
        self.videos = []

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            labels = predicted_frames(output)
            check_length(sample, len(labels), sample["file_names"])
            video = {"video": sample["video_id"], "frames": len(labels)}
            if self.has_labels:
                paths = self.truth.find(sample)["sem_seg_file_names"]
                check_length(sample, len(labels), paths)
                video |= self.compare(labels, paths, sample)
            if self.output_folder and (self.save_labels or not self.has_labels):
                write = LabelWriter(os.path.join(self.output_folder, "sem_seg_predictions"))
                for frame, one in enumerate(labels):
                    write(sample, frame, one)
            self.videos.append(video)

    def compare(self, labels: Sequence[np.ndarray], paths: list[str], sample: dict) -> dict:
        """Add the frames to the confusion matrix; (sum, count) of the clips of each kind of VC."""
        consistency = Consistency(CLIPS, self.ignore)
        for path, predicted in zip(paths, labels, strict=True):
            values = read_values(path)
            if values.shape != predicted.shape:
                raise ValueError(
                    f"{path} has {size_text(values)} pixels, but the prediction for this frame of "
                    f"video {sample['video_id']!r} has {size_text(predicted)}; check height and "
                    "width in the record, and that frames and labels belong together"
                )
            truth = to_classes(values, path, self.metadata)
            self.add(truth, predicted, path)
            consistency.add(values, truth, predicted)
        return consistency.totals()

    def evaluate(self):
        videos = comm.gather(self.videos)
        results = super().evaluate() if self.has_labels else {}
        if not comm.is_main_process():
            return None
        videos = sum(videos, [])
        seen = (video["video"] for video in videos)
        check_complete(seen, self.truth.records, self.dataset_name, "video")
        if not self.has_labels:
            logger.warning("%s has no labels to compare with: no mIoU", self.dataset_name)
            return {}
        names = list(Consistency(CLIPS, self.ignore).clips)
        metrics = {name: percent([video[name] for video in videos]) for name in names}
        table = [video | {name: percent([video[name]]) for name in names} for video in videos]
        write_tables(self.output_folder, "video_consistency", metrics, table)
        logger.info("video consistency\n%s", text_table([metrics]))
        return {"sem_seg": results["sem_seg"] | metrics}


def predicted_frames(output: dict) -> Sequence[np.ndarray]:
    if not {"sem_seg_frames", "sem_seg_labels"} & output.keys():
        raise ValueError(
            "the model's output has neither sem_seg_frames nor sem_seg_labels, but only "
            f"{', '.join(output) or 'nothing'}; evaluate a VideoMaskFormer with "
            "MODEL.MASK_FORMER.TEST.SEMANTIC_ON True, or leave out this evaluator"
        )
    return label_maps(output)


def check_length(sample: dict, length: int, expected: list[str]) -> None:
    if length != len(expected):
        raise ValueError(
            f"the prediction for video {sample['video_id']!r} has {length} frames, but there are "
            f"{len(expected)}, from {expected[0]} on; predict each frame of the video, in order"
        )


def percent(totals: list[tuple[float, int]]) -> float:
    """The mean over the clips, from sums and counts of videos."""
    total, count = map(sum, zip(*totals, strict=True))
    return 100 * total / count if count else float("nan")
