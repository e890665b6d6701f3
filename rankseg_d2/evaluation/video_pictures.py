"""The sheet of pictures of a data set of videos: a few frames of its first videos."""

from collections.abc import Callable

import numpy as np
import torch
from detectron2.structures import Instances

from ..data.formats import rle
from ..data.formats.video_frames import frame_records
from ..data.mappers.images import present_classes
from ..drawing import INK, Row
from ..modeling.results.reading import label_maps, predicted_labels, rle_masks
from ..tasks import VIDEO_LABEL_KEYS, VIDEO_TYPES
from .class_maps import ClassMaps
from .ground_truth import GroundTruth
from .pictures import LINES, PictureSheet, Prediction, category_lines

FRAMES = 2  # of each video


class VideoPictureSheet(PictureSheet):
    """PictureSheet of videos: a row for each of FRAMES frames, which are spread over the video.

    The ranking is the video's, and names are green if any of its frames has the category. Without
    one, they are those of the frame. Frames are read one at a time.
    """

    def class_maps(self) -> ClassMaps:
        self.task = VIDEO_TYPES[self.metadata.evaluator_type][0]
        self.ground_truth = GroundTruth(self.dataset_name, (VIDEO_LABEL_KEYS[self.task],))
        return ClassMaps(self.dataset_name, "stuff" if self.task == "semantic" else "thing")

    def rows_of(self, sample: dict, output: dict) -> list[list[np.ndarray]]:
        """The rows of a video."""
        frames = frame_records(sample | self.ground_truth.find(sample))
        present = self._present(frames) if "ranking" in output else None
        read, rows = self._reader(output), []
        for number in middles(len(frames), FRAMES):
            frame = frames[number]
            prediction = read(number)
            ground_truth = self.maps.ground_truth(frame)
            lines = category_lines(
                output, ground_truth if present is None else present, prediction[0], self.names,
                self.colors, LINES - 1,
            )  # fmt: skip
            title = f"video {sample['video_id']}, frame {number + 1} of {len(frames)}"
            row = [Row(title, ink=INK), *lines]
            rows.append(self.row(frame["file_name"], ground_truth, [prediction], row))
        return rows

    def _present(self, frames: list[dict]) -> np.ndarray:
        """The classes that any frame of a video has, in any order."""
        found = (present_classes(frame, self.task, self.metadata) or () for frame in frames)
        return np.array(sorted(set().union(*found)), np.int64)

    def _reader(self, output: dict) -> Callable[[int], Prediction]:
        """What gives the prediction for a frame of a video."""
        if self.task == "semantic":
            maps = label_maps(output)
            return lambda number: (maps[number], None)
        tracks = rle_masks(output)
        return lambda number: self._tracks(output, [track[number] for track in tracks])

    def _tracks(self, output: dict, masks: list[dict | None]) -> Prediction:
        """The likely tracks in a frame, by their masks in it."""
        size = tuple(output["image_size"])
        dense = [np.zeros(size, bool) if one is None else rle.decode(one) for one in masks]
        instances = Instances(
            size,
            pred_masks=torch.from_numpy(np.array(dense, bool).reshape(-1, *size)),
            scores=torch.as_tensor(output["pred_scores"]).cpu(),
            pred_classes=torch.as_tensor(output["pred_labels"]).cpu(),
        )
        return predicted_labels({"instances": instances}, len(self.names))


def middles(length: int, count: int) -> list[int]:
    """The middles of `count` equal parts of a video, or all of its frames if it has fewer."""
    if length <= count:
        return list(range(length))
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]
