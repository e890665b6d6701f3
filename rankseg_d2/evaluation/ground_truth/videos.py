"""Ground-truth objects of videos, from the data set's json or from its records."""

import os
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...data.formats.json_checks import check_ids, entries
from ...data.formats.mask_checks import check_masks
from ...data.formats.rle import to_rle
from ...data.formats.youtube_vis import read_videos
from ..checks import check_known
from ..video_overlap import MaskTrack, mean_area


class VideoObject(NamedTuple):
    category: int  # contiguous id
    track: MaskTrack
    areas: list | None  # one per frame, from the json; None: count the pixels
    crowd: bool


class Video(NamedTuple):
    length: int
    size: tuple[int, int]  # height, width
    objects: list[VideoObject]

    def areas(self, pixels: np.ndarray) -> np.ndarray:
        """Mean areas (G,) of the objects, from the json or else from `pixels` (G, T) of masks."""
        areas = mean_area(pixels)
        for i, one in enumerate(self.objects):
            if one.areas is not None:
                areas[i] = mean_area(np.array([[area or 0 for area in one.areas]], float))[0]
        return areas


class VideoGroundTruth:
    """The videos and categories of a data set.

    Attributes:
        videos: video id -> Video.
        names: contiguous category id -> name.
        dataset_ids: contiguous category id -> id in the json.
        has_objects: False for a split without public labels.
    """

    def __init__(self, dataset_name: str):
        self.dataset_name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("json_file"):
            self._read_json(os.fspath(metadata.json_file), metadata)
        else:
            self._read_records(metadata)
        self.has_objects = any(video.objects for video in self.videos.values())

    def _read_json(self, path: str, metadata) -> None:
        content = read_videos(path, is_exact=True)
        categories = entries(content, "categories", {"id", "name"}, path)
        check_ids((category["id"] for category in categories), "categories", path)
        names = {category["id"]: category["name"] for category in categories}
        in_order = {dataset_id: i for i, dataset_id in enumerate(sorted(names))}
        ids = metadata.get("thing_dataset_id_to_contiguous_id", in_order)
        self.dataset_ids = {ids[own]: own for own in sorted(names) if own in ids}
        self.names = {i: names[own] for i, own in self.dataset_ids.items()}
        self.videos = {
            video["id"]: Video(len(video["file_names"]), (video["height"], video["width"]), [])
            for video in content["videos"]
        }
        for annotation in content.get("annotations") or ():
            if annotation["category_id"] in ids:
                self._add(annotation, ids[annotation["category_id"]])

    def _add(self, annotation: dict, category: int) -> None:
        video, shapes = self.videos[annotation["video_id"]], annotation["segmentations"]
        track = [to_rle(shape, *video.size) if shape else None for shape in shapes]
        crowd = bool(annotation.get("iscrowd", 0))
        video.objects.append(VideoObject(category, track, annotation.get("areas"), crowd))

    def _read_records(self, metadata) -> None:
        """Records have contiguous category ids, and a list of objects for each frame."""
        self.names = dict(enumerate(metadata.thing_classes))
        own = metadata.get("thing_dataset_id_to_contiguous_id", {})
        self.dataset_ids = {i: i for i in self.names} | {i: number for number, i in own.items()}
        self.videos = {}
        for record in DatasetCatalog.get(self.dataset_name):
            size = record["height"], record["width"]
            found: dict[int, VideoObject] = {}
            for frame, annotations in enumerate(record.get("annotations", ())):
                check_masks(annotations, size, record["file_names"][frame])
                for annotation in annotations:
                    track: MaskTrack = [None] * record["length"]
                    crowd = bool(annotation.get("iscrowd", 0))
                    one = VideoObject(annotation["category_id"], track, None, crowd)
                    one = found.setdefault(annotation["id"], one)
                    one.track[frame] = to_rle(annotation["segmentation"], *size)
            self.videos[record["video_id"]] = Video(record["length"], size, list(found.values()))

    def find(self, video_id) -> Video:
        check_known(video_id, self.videos, self.dataset_name, "video")
        return self.videos[video_id]
