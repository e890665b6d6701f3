"""The result of a video by a model for videos: labels of each frame, and tracked objects."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.formats import rle
from ..drawing import Segment, beside, draw_list, draw_overlay
from ..files import replacing
from .classes import Classes
from .formats import category_rows, share_rows
from .frames import Video
from .results import Category, ImageResult, Instances, in_words, list_rows
from .saving import check_free, json_bytes, path_of, write_files

_LIKELY = 0.5  # score of the tracks that are drawn


@dataclass(frozen=True, eq=False)
class Track:
    """An object of a video; its masks are compressed, one for each frame, None where it is not."""

    category: int  # class number
    name: str
    score: float
    rles: tuple[dict | None, ...]  # COCO's compressed RLE

    def mask(self, frame: int) -> np.ndarray | None:
        """(H, W) bool, or None where the object is not in the frame."""
        return None if self.rles[frame] is None else rle.decode(self.rles[frame])


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What a model sees in a video of T frames.

    Label maps and masks are compressed, the frames are decoded again when they are drawn.

    Attributes:
        video: its frames.
        semantic: T maps (H, W) of class numbers, C for none; None if the model gives none.
        tracks: objects, best first; None if the model gives none.
        categories: the ranked list of the whole video; () if the model does not rank.
        excluded, likely_excluded: as of an ImageResult.
        speed: milliseconds per frame.
    """

    video: Video = field(repr=False)
    classes: Classes = field(repr=False)
    size: tuple[int, int] = (0, 0)  # height and width
    semantic: Sequence[np.ndarray] | None = None
    tracks: tuple[Track, ...] | None = None
    categories: tuple[Category, ...] = ()
    excluded: tuple[str, ...] = ()
    likely_excluded: tuple[str, ...] = ()
    speed: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video.frames)

    def __iter__(self) -> Iterator[ImageResult]:
        return (self.frame(number) for number in range(len(self)))

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def names(self) -> tuple[str, ...]:
        """The categories in the video, the largest first."""
        return tuple(self.classes.names[number] for number in self.shares())

    def shares(self) -> dict[int, float]:
        """Class number -> its share of all pixels, the largest first.

        Without label maps, the likely tracks count.
        """
        return self._shares

    @cached_property
    def _shares(self) -> dict[int, float]:
        count = len(self.classes)
        pixels = len(self) * self.size[0] * self.size[1]
        totals = np.zeros(count, np.int64)
        if self.semantic is not None:
            for labels in self.semantic:
                totals += np.bincount(labels.ravel(), minlength=count)[:count]
        else:
            for track in self.likely():
                totals[track.category] += rle.areas([one for one in track.rles if one]).sum()
        some = sorted(np.flatnonzero(totals).tolist(), key=lambda i: -totals[i])
        return {i: int(totals[i]) / pixels for i in some}

    def likely(self) -> list[Track]:
        """The tracks that are drawn: with a score of 0.5 or more."""
        return [track for track in self.tracks or () if track.score >= _LIKELY]

    def frame(self, number: int) -> ImageResult:
        """One frame, as the result of an image; its instances are the tracks that are in it."""
        number = range(len(self))[number]
        return ImageResult(
            self.video.frames[number], self.classes, self.video.frame_name(number),
            semantic=None if self.semantic is None else self.semantic[number],
            instances=None if self.tracks is None else self._instances(number),
            categories=self.categories, excluded=self.excluded,
            likely_excluded=self.likely_excluded, speed=self.speed,
        )  # fmt: skip

    def _instances(self, number: int) -> Instances:
        here = [track for track in self.tracks if track.rles[number] is not None]
        rles = tuple(track.rles[number] for track in here)
        boxes = np.array([rle.box(one) for one in rles], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([track.score for track in here], float)
        return Instances(scores, np.array([t.category for t in here], int), boxes, rles, self.size)

    def plot(self, number: int, *, ranking: bool = True, **options: Any) -> np.ndarray:
        """A frame with the result on it; a track has one colour in all frames: (H, W, 3) RGB."""
        if self.tracks is None:
            drawn: dict[str, Any] = {"labels": self.semantic[number]}
        else:
            empty = np.zeros(self.size, bool)  # keeps the tints of the tracks after it
            masks = [(track, track.mask(number)) for track in self.likely()]
            drawn = {"segments": [
                Segment(t.category, mask=empty if mask is None else mask, score=t.score)
                for t, mask in masks
            ]}  # fmt: skip
        picture = draw_overlay(
            self.video.frames[number], names=self.classes.names, colors=self.classes.colors,
            **drawn, **options,
        )  # fmt: skip
        rows = list_rows(self.classes, self.categories, self.shares()) if ranking else []
        return beside(picture, draw_list(rows, height=picture.shape[0])) if rows else picture

    def save_video(
        self, path: str | os.PathLike, *, fps: float | None = None, **options: Any
    ) -> Path:
        """Write the plots as an .mp4; `options` are those of `plot`."""
        path = Path(path)
        if path.suffix.lower() != ".mp4":
            raise ValueError(f"the video to write, {path}, must end in .mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = (_even(self.plot(number, **options)) for number in range(len(self)))
        with replacing(path) as temporary:
            if not _write_video(temporary, pictures, fps or self.video.fps):
                raise OSError(f"{path} cannot be written: OpenCV cannot make .mp4 files here")
        return path

    def save(
        self,
        folder: str | os.PathLike,
        *,
        label_png: bool = True,
        overlay: bool = True,
        coco: bool = False,
        categories: bool = False,
        own_ids: bool = False,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write files of the result below a folder; their paths.

        FileExistsError where one exists with other content, unless `overwrite` is set.

        Args:
            label_png: <name>/<frame>.png: as of an image.
            overlay: <name>_overlay.mp4: the plots.
            coco: <name>_coco.json: YouTube-VIS's results of the tracks.
            categories: <name>_categories.json: the ranked list.
        """
        files = {}
        if coco:
            files["_coco.json"] = json_bytes(self.to_coco(self.video.stem))
        if categories:
            files["_categories.json"] = json_bytes(category_rows(self))
        name, source = f"{self.video.stem}.mp4", self.video.path
        video = path_of(name, folder, "_overlay.mp4")
        if overlay:
            check_free(video, b"", source, overwrite)
        written = write_files(files, name, folder, source, overwrite)
        if label_png:
            for one in self:
                written += one.save(folder, overlay=False, own_ids=own_ids, overwrite=overwrite)
        return [*written, self.save_video(video)] if overlay else written

    def to_coco(self, video_id: int | str = 0) -> list[dict]:
        """YouTube-VIS's results of the tracks: video_id, category_id, score, segmentations."""
        return [
            {
                "video_id": video_id,
                "category_id": self.classes.ids[track.category],
                "score": track.score,
                "segmentations": [one and rle.as_text(one) for one in track.rles],
            }
            for track in self.tracks or ()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as `rankseg-d2 predict --json` writes them."""
        height, width = self.size
        found: dict[str, Any] = {
            "name": self.name, "path": self.video.path, "frames": len(self),
            "fps": self.video.fps, "height": height, "width": width,
            "classes": share_rows(self),
        }  # fmt: skip
        if self.tracks is not None:
            found["tracks"] = self.to_coco(self.video.stem)
        if self.categories:
            found["categories"] = category_rows(self)
        more = {"excluded": list(self.excluded), "likely_excluded": list(self.likely_excluded)}
        return found | more | {"speed": dict(self.speed)}

    def __repr__(self) -> str:
        height, width = self.size
        parts = [f"{len(self)} frames of {width} x {height}"]
        if self.tracks is not None:
            parts.append(f"{len(self.likely())} likely tracks")
        parts.append(in_words(self.classes, self.shares()))
        return f"{type(self).__name__}({self.name}: {'; '.join(parts)})"


def _write_video(path: Path, pictures: Iterator[np.ndarray], fps: float) -> bool:
    """Write RGB pictures of one size; whether OpenCV can."""
    first = next(pictures)
    code, size = cv2.VideoWriter_fourcc(*"mp4v"), first.shape[1::-1]
    writer = cv2.VideoWriter(str(path), code, fps, size)
    try:
        if not writer.isOpened():
            return False
        for picture in chain([first], pictures):
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    return True


def _even(picture: np.ndarray) -> np.ndarray:
    """With even sides, which the format needs."""
    bottom, right = (side % 2 for side in picture.shape[:2])
    return cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
