"""The frames of a video that a user gives: of a file that OpenCV reads, or one image each."""

import operator
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from ..data.formats.image_files import UnreadableError
from ..errors import cut
from .sources import Item, is_video, open_source

FPS = 25.0  # of videos that do not say it


class VideoFile(Sequence):
    """The RGB frames (H, W, 3) of a video file, decoded on access; reading in order is quick.

    Threads may share it. An earlier frame than the last one is read from the beginning again:
    seeking is not exact in many files.
    """

    def __init__(self, path: str) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"the video {cut(path)} does not exist")
        self.path = path
        self._lock = threading.Lock()
        self._capture = self._open()
        self._position = 0  # of the frame that is read next
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or FPS

    def _open(self) -> cv2.VideoCapture:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the error below says it in words
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise UnreadableError(
                f"the video {self.path} cannot be read: it is damaged, no video, or of a kind that "
                "OpenCV does not know; convert it to .mp4"
            )
        return capture

    @cached_property
    def _count(self) -> int:
        """How many frames can be read; what headers say is often wrong."""
        capture, count = self._open(), 0
        while capture.grab():
            count += 1
        capture.release()
        return count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        number = range(len(self))[operator.index(index)]
        with self._lock:
            if number < self._position:
                self._capture.release()
                self._capture, self._position = self._open(), 0
            while self._position < number and self._capture.grab():
                self._position += 1
            is_read, frame = self._capture.read()
            self._position += 1
        if not is_read:
            raise UnreadableError(f"frame {number} of the video {self.path} cannot be read")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class ImageFrames(Sequence):
    """The RGB frames (H, W, 3) of a video whose frames are images."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.items[operator.index(index)].read()


@dataclass(frozen=True, eq=False)
class Video:
    """A video, and the names of its frames."""

    frames: Sequence[np.ndarray]  # (H, W, 3) RGB, decoded on access
    name: str  # of the file or folder; results are written below its stem
    path: str = ""
    fps: float = FPS

    def frame_name(self, number: int) -> str:
        """<name of the video>/<name or number of the frame>."""
        name = f"{number:05d}"
        if isinstance(self.frames, ImageFrames) and self.frames.items[number].path:
            name = self.frames.items[number].name
        return f"{self.stem}/{name}"

    @property
    def stem(self) -> str:
        """The name without the end of a file."""
        is_file = isinstance(self.frames, VideoFile)
        return PurePath(self.name).with_suffix("").as_posix() if is_file else self.name

    def items(self) -> list[Item]:
        """The frames one by one, for models of images."""

        def item(number: int) -> Item:
            return Item(self.frame_name(number), self.path, lambda: self.frames[number])

        return [item(number) for number in range(len(self.frames))]


def open_video(source: Any, name: str = "") -> Video:
    """The video of a file, or of a folder, pattern, list or array (T, H, W, 3) of frames.

    The `name` of a file is its base name, unless it is given.
    """
    if isinstance(source, Video):
        return source
    is_path = isinstance(source, str | os.PathLike)
    path = os.path.expanduser(os.fspath(source)) if is_path else ""
    if path and (os.path.isfile(path) or (is_video(path) and not os.path.exists(path))):
        frames = VideoFile(path)
        video = Video(frames, name or os.path.basename(path), path, frames.fps)
    elif is_path:
        items = list(open_source(path).items)
        video = Video(ImageFrames(items), os.path.basename(os.path.abspath(path)), path)
    elif isinstance(source, list | tuple) or len(getattr(source, "shape", ())) == 4:
        video = Video(ImageFrames(list(open_source(list(source)).items)), "video")
    else:
        raise TypeError(
            "a video is a file, a folder of frames, a list of images, or an array (frames, height, "
            f"width, 3), not a {type(source).__name__}"
        )
    if not len(video.frames):
        raise UnreadableError(f"the video {video.path or video.name} has no frames")
    return video
