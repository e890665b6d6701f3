"""The true objects of a data set's videos, from its json or from its records."""

import os
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...data.formats.rle import to_rle
from ...files import read_json
from ..video_overlap import MaskTrack, mean_area


class VideoObject(NamedTuple):
    category: int  # contiguous id
    track: MaskTrack
    areas: list | None  # of each frame, as the json says; None: to be counted
    crowd: bool


class Video(NamedTuple):
    length: int
    size: tuple[int, int]  # height, width
    objects: list[VideoObject]

    def areas(self, pixels: np.ndarray) -> np.ndarray:
        """The sizes (G,) that make objects small or large; `pixels` (G, T) as their masks have."""
        areas = mean_area(pixels)
        for i, one in enumerate(self.objects):
            if one.areas is not None:
                areas[i] = mean_area(np.array([[area or 0 for area in one.areas]], float))[0]
        return areas


class VideoTruth:
    """Videos and categories of a data set.

    Attributes:
        videos: video id -> Video.
        names: contiguous category id -> name; dataset_ids: -> id in the json.
        has_objects: whether there are any; not where the labels of a split are not public.
    """

    def __init__(self, dataset_name: str):
        self.dataset_name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("json_file"):
            self.read_json(os.fspath(metadata.json_file), metadata)
        else:
            self.read_records(metadata)
        self.has_objects = any(video.objects for video in self.videos.values())

    def read_json(self, path: str, metadata) -> None:
        content = read_json(path, PathManager.open)
        if missing := {"videos", "categories"} - content.keys():
            raise ValueError(
                f"{path} has no {' and no '.join(sorted(missing))}; json_file must be a json in "
                "the format of YouTube-VIS"
            )
        names = {category["id"]: category["name"] for category in content["categories"]}
        in_order = {dataset_id: i for i, dataset_id in enumerate(sorted(names))}
        ids = metadata.get("thing_dataset_id_to_contiguous_id", in_order)
        self.dataset_ids = {ids[own]: own for own in sorted(names) if own in ids}
        self.names = {i: names[own] for i, own in self.dataset_ids.items()}
        self.videos = {
            video["id"]: Video(video["length"], (video["height"], video["width"]), [])
            for video in content["videos"]
        }
        for annotation in content.get("annotations") or ():
            if annotation["category_id"] in ids:
                self.add(annotation, ids[annotation["category_id"]], path)

    def add(self, annotation: dict, category: int, path: str) -> None:
        video_id, segmentations = annotation["video_id"], annotation["segmentations"]
        if video_id not in self.videos:
            raise ValueError(
                f"{path}: the annotation {annotation['id']} is of video {video_id!r}, which is "
                "not among its videos; mend the json"
            )
        video = self.videos[video_id]
        if len(segmentations) != video.length:
            raise ValueError(
                f"{path}: the annotation {annotation['id']} has masks of {len(segmentations)} "
                f"frames, but video {video_id!r} has {video.length}; mend the json"
            )
        track = [to_rle(segment, *video.size) if segment else None for segment in segmentations]
        crowd = bool(annotation.get("iscrowd", 0))
        video.objects.append(VideoObject(category, track, annotation.get("areas"), crowd))

    def read_records(self, metadata) -> None:
        """Records have contiguous category ids, and a list of objects for each frame."""
        self.names = dict(enumerate(metadata.thing_classes))
        own = metadata.get("thing_dataset_id_to_contiguous_id", {})
        self.dataset_ids = {i: i for i in self.names} | {i: number for number, i in own.items()}
        self.videos = {}
        for record in DatasetCatalog.get(self.dataset_name):
            size = record["height"], record["width"]
            found: dict[int, VideoObject] = {}
            for frame, annotations in enumerate(record.get("annotations", ())):
                for annotation in annotations:
                    track: MaskTrack = [None] * record["length"]
                    crowd = bool(annotation.get("iscrowd", 0))
                    one = VideoObject(annotation["category_id"], track, None, crowd)
                    one = found.setdefault(annotation["id"], one)
                    one.track[frame] = to_rle(annotation["segmentation"], *size)
            self.videos[record["video_id"]] = Video(record["length"], size, list(found.values()))

    def find(self, video_id) -> Video:
        if video_id not in self.videos:
            known = ", ".join(map(repr, list(self.videos)[:3]))
            raise ValueError(
                f"the video {video_id!r} is not in the ground truth of {self.dataset_name!r}, "
                f"whose videos are {known}, …; video_id of records and json must be the same"
            )
        return self.videos[video_id]
