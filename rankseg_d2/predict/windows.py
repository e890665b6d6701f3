"""A model for videos goes through a video window by window, in memory that does not grow."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..modeling.meta_arch import VideoMaskFormer
from ..modeling.video import VideoWindows, predict_video
from ..ranking import Calibration
from .classes import Classes
from .frames import Video
from .outputs import ranked
from .video import Track, VideoResult
from .wishes import Wishes

_WINDOW, _OVERLAP = 8, 4  # frames, of models that take videos as a whole (TEST.VIDEO.WINDOW 0)


class _Samples(Sequence):
    """The frames of a video as the network takes them, made on access."""

    def __init__(self, video: Video, prepare: Callable[[np.ndarray], dict]) -> None:
        self.video, self.prepare = video, prepare
        self.size = video.frames[0].shape[:2]

    def __len__(self) -> int:
        return len(self.video.frames)

    def __getitem__(self, number: int) -> torch.Tensor:
        frame = self.video.frames[number]
        if frame.shape[:2] != self.size:
            sizes = [f"{width} x {height}" for height, width in (frame.shape[:2], self.size)]
            raise ValueError(
                f"{self.video.frame_name(number)} is {sizes[0]}, but the first frame {sizes[1]}; "
                "the frames of a video must have one size"
            )
        return self.prepare(frame)["image"]


def run_video(
    model: VideoMaskFormer,
    video: Video,
    prepare: Callable[[np.ndarray], dict],
    wishes: Wishes,
    classes: Classes,
    calibration: Calibration | None,
    autocast: AbstractContextManager,
) -> VideoResult:
    """The result of all windows; a thread reads the next one's frames while one runs."""
    if model.result_options.panoptic:
        raise ValueError(
            "videos have semantic and instance results: set MODEL.MASK_FORMER.TEST.PANOPTIC_ON "
            "False"
        )
    windows = model.windows or VideoWindows(_WINDOW, _OVERLAP)
    windows = replace(windows, num_workers=1)  # frames of a file are decoded in their order
    samples = _Samples(video, prepare)
    height, width = samples.size
    sample = {"image": samples, "height": height, "width": width, "video_id": video.name}
    start = time.perf_counter()
    with torch.no_grad(), autocast, wishes.on(model):
        output = predict_video(model, sample, windows)
    speed = {"frame": 1000 * (time.perf_counter() - start) / len(samples)}
    excluded = tuple(classes.names[i] for i in sorted(wishes.excluded))
    result = VideoResult(
        video, classes, (height, width), output.get("sem_seg_frames"), _tracks(output, classes),
        excluded=excluded, speed=speed,
    )  # fmt: skip
    if "ranking" not in output:
        return result
    more = ranked(classes, output["ranking"], result.shares(), wishes, calibration)
    return replace(result, **more)


def _tracks(output: dict[str, Any], classes: Classes) -> tuple[Track, ...] | None:
    if "pred_masks" not in output:
        return None
    columns = output["pred_labels"].tolist(), output["pred_scores"].tolist(), output["pred_masks"]
    rows = zip(*columns, strict=True)
    return tuple(
        Track(number, classes.names[number], score, tuple(rles))
        for number, score, rles in rows
        if any(one is not None for one in rles)
    )
