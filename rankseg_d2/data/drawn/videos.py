"""The files of videos, as VSPW (frames, label PNG) and YouTube-VIS (json).

A video is a scene at the times 0, 1, 2, ...
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .images import annotate, coco_categories, encode, ignore_label
from .split import JPEG_QUALITY, SPLITS, SplitSpec, draw_all

_IS_VIDEO = 1  # in seeds: scenes differ from those of images
_VIDEOS_PER_PROCESS = 20  # as many are drawn in the seconds that a process takes to start


@dataclass(frozen=True)
class VideoSpec(SplitSpec):
    """The parameters of a split of videos."""

    num_videos: int
    shortest: int  # frames
    longest: int
    height: int
    width: int
    version: int  # of drawing and files: splits of another version are made again

    def __post_init__(self) -> None:
        self._check(self.num_videos, "video")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"videos of {self.name} must have 1 frame or more, and shortest <= longest, got "
                f"{self.shortest} to {self.longest}"
            )

    def write(self, folder: Path, num_workers: int) -> None:
        draw_one = functools.partial(_draw_video, folder, self)
        title = f"{self.name} video {self.split}"
        drawn = draw_all(draw_one, self.num_videos, title, num_workers, _VIDEOS_PER_PROCESS)
        _write_lists(folder, self, drawn)


def label_table(num_categories: int) -> np.ndarray:
    """Value in the label images -> category: 0 is ignored, other values are category + 1."""
    return np.append(ignore_label(num_categories), np.arange(num_categories))


def _write_lists(folder: Path, spec: VideoSpec, drawn: list[dict]) -> None:
    videos = [content["video"] for content in drawn]
    objects = [entry for content in drawn for entry in content["objects"]]
    things = [kind for kind in coco_categories(spec.vocabulary) if kind["isthing"]]
    content = {
        "videos": videos,
        "annotations": [{"id": number} | entry for number, entry in enumerate(objects, 1)],
        "categories": things,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    names = [video["file_names"][0].partition("/")[0] for video in videos]
    (folder / f"{spec.split}.txt").write_text("".join(f"{name}\n" for name in names))


def _draw_video(folder: Path, spec: VideoSpec, index: int) -> dict:
    """Write the files of one video; returns its entries in the json: the video, its objects."""
    from PIL import Image

    seed = (spec.num_categories, SPLITS.index(spec.split), index, _IS_VIDEO)
    scene = spec.make_scene(seed)
    lengths = np.random.default_rng((*seed, 0))
    length = int(lengths.integers(spec.shortest, spec.longest, endpoint=True))
    target = folder / "data" / f"{index:05d}"
    for name in ("origin", "mask"):
        (target / name).mkdir(parents=True)
    found = []
    for time in range(length):
        picture, numbers = spec.draw(scene, time)
        labels, ids, segments = annotate(scene, numbers)
        found.append((segments, encode(ids, segments, spec.vocabulary)))
        Image.fromarray(picture).save(target / f"origin/{time:08d}.jpg", quality=JPEG_QUALITY)
        Image.fromarray(_values(labels, spec.num_categories)).save(target / f"mask/{time:08d}.png")
    video = {
        "id": index + 1,
        "file_names": [f"{target.name}/origin/{time:08d}.jpg" for time in range(length)],
        "length": length,
        "height": spec.height,
        "width": spec.width,
    }
    return {"video": video, "objects": _objects(index + 1, found)}


def _values(labels: np.ndarray, num_categories: int) -> np.ndarray:
    """Categories -> values of the label images; see `label_table`."""
    values = np.where(labels == ignore_label(num_categories), 0, labels.astype(np.int32) + 1)
    return values.astype(np.uint8 if num_categories < 255 else np.uint16)


def _objects(video_id: int, found: list[tuple[list[dict], dict]]) -> list[dict]:
    """The objects of a video's json, with None for frames that do not show them.

    found: of each frame, its segments, and the masks of its things by segment id; a thing has the
    same id in every frame.
    """
    categories = {s["id"]: s["category_id"] for segments, masks in found for s in segments
                  if s["id"] in masks}  # fmt: skip
    by_frame = [{segment["id"]: segment for segment in segments} for segments, _ in found]
    return [
        {
            "video_id": video_id,
            "category_id": categories[number],
            "iscrowd": 0,
            "segmentations": [masks.get(number) for _, masks in found],
            "bboxes": [segments.get(number, {}).get("bbox") for segments in by_frame],
            "areas": [segments.get(number, {}).get("area") for segments in by_frame],
        }
        for number in sorted(categories)
    ]
