"""Mappers of videos: clips of a few frames to train on, whole videos to predict.

Frames are mapped like images (`images.py`). All frames of a clip share the scale, flip, crop and
colours drawn for the first one, and an object or class is the same row in every frame.
"""

import random
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ...tasks import LABEL_KEYS, TASKS, VIDEO_LABEL_KEYS, find
from ..formats.image_files import image_size
from ..formats.video_frames import LazyFrames, frame_record, frame_records
from .images import TestMapper, TrainMapper, present_classes, read_image, to_tensor
from .packed_masks import IdMapMasks
from .targets import Augmented, instance_target, needed, objects, semantic_target

_NOT_IN_SAMPLES = LABEL_KEYS | set(VIDEO_LABEL_KEYS.values())  # keys of a record


ClipTarget = tuple[list[int], list[int], list]  # ids, class ids, masks of each frame


@dataclass(frozen=True)
class FrameSampler:
    """Choose the frames of a clip: length of a video -> indices of its frames.

    A reference frame is drawn. With `is_random`, `number` - 1 others are drawn from the frames at
    most `reach` before or after it, with replacement as in upstream; else they follow it at
    `interval` frames. They are in temporal order unless `shuffle`. A short video repeats frames.
    """

    number: int
    reach: int
    interval: int
    is_random: bool
    shuffle: bool

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "FrameSampler":
        keys = cfg.INPUT
        for key, lowest in (("FRAME_NUM", 1), ("FRAME_RANGE", 0), ("INTERVAL", 1)):
            if keys[f"SAMPLING_{key}"] < lowest:
                raise ValueError(
                    f"INPUT.SAMPLING_{key} must be {lowest} or more; got {keys[f'SAMPLING_{key}']}"
                )
        return cls(
            keys.SAMPLING_FRAME_NUM,
            keys.SAMPLING_FRAME_RANGE,
            keys.SAMPLING_INTERVAL,
            keys.SAMPLING_RANDOM,
            keys.SAMPLING_FRAME_SHUFFLE,
        )

    def __call__(self, length: int) -> list[int]:
        reference = random.randrange(length)
        if self.is_random:
            near = range(max(0, reference - self.reach), min(length, reference + self.reach + 1))
            others = [index for index in near if index != reference] or [reference]
            frames = [*np.random.choice(others, self.number - 1).tolist(), reference]
        else:
            steps = self.interval * np.arange(self.number)
            start = min(reference, max(0, length - 1 - steps[-1]))
            frames = (start + steps).clip(max=length - 1).tolist()
        frames.sort()
        if self.shuffle:
            random.shuffle(frames)
        return frames


class ClipTrainMapper(TrainMapper):
    """A clip of a video: `image`, `instances` and `file_names` are lists over its T frames.

    Row n of every frame's instances is the same object, or class if the task is semantic.
    `gt_classes` is its class; `gt_ids` is its id, or -1 in frames that do not show it. Objects that
    no frame shows are left out, unless `keep_empty`.
    """

    def __init__(self, sample_frames: FrameSampler, task: str, *args, **kwargs) -> None:
        super().__init__(task, *args, **kwargs)
        self.sample_frames = sample_frames
        self.clip_target = find(TASKS[task].clip_target)

    @staticmethod
    def read(frame: dict) -> np.ndarray:
        return _read_frame(frame)

    def map(self, record: dict) -> dict:
        sample = {key: x for key, x in record.items() if key not in _NOT_IN_SAMPLES}
        chosen = self.sample_frames(len(_video_paths(record)))
        sample["image"], frames, transforms = [], [], None
        for index in chosen:
            frame = frame_record(record | sample, index)
            image, augmented = self.augment(frame, frame, transforms)
            sample |= {"height": frame["height"], "width": frame["width"]}
            sample["image"].append(image)
            frames.append(augmented)
            transforms = augmented.transforms
        sample["file_names"] = [frame.record["file_name"] for frame in frames]
        ids, classes, masks = self.clip_target(frames)
        present = torch.stack([masks_of_frame.nonempty() for masks_of_frame in masks])  # (T, N)
        sample["instances"] = []
        for frame, masks_of_frame, is_present in zip(frames, masks, present, strict=True):
            instances = self.instances(frame, classes, masks_of_frame)
            instances.gt_ids = torch.tensor(ids, dtype=torch.int64).where(is_present, -1)
            sample["instances"].append(instances if self.keep_empty else instances[present.any(0)])
        return sample


class ClipTestMapper(TestMapper):
    """A whole video; `image` is `LazyFrames`, which reads each frame on access."""

    def __call__(self, record: dict) -> dict:
        sample = {key: value for key, value in record.items() if key != "annotations"}
        paths = _video_paths(record)
        if "height" not in record or "width" not in record:
            sample["height"], sample["width"] = image_size(paths[0], "frame")
        video = {key: sample[key] for key in ("video_id", "height", "width") if key in sample}
        sample["image"] = LazyFrames(
            paths,
            partial(
                _resized_frame,
                video=video,
                augmentations=self.augmentations,
                image_format=self.image_format,
            ),
        )
        if self.present_of:
            found = [
                present_classes(frame, self.present_of, self.metadata)
                for frame in frame_records(record)
            ]
            if None not in found:
                classes = sorted(set().union(*found))
                sample["present_classes"] = torch.tensor(classes, dtype=torch.int64)
        return sample


def _resized_frame(path: str, video: dict, augmentations, image_format: str) -> torch.Tensor:
    """One frame of a video, resized: (3, H, W)."""
    aug_input = T.AugInput(_read_frame({"file_name": path} | video))
    augmentations(aug_input)
    return to_tensor(aug_input.image, image_format)


def _read_frame(frame: dict) -> np.ndarray:
    """The RGB image (H, W, 3) of a frame; checks height and width of its record, or adds them."""
    image = read_image({"file_name": frame["file_name"]})
    height, width = image.shape[:2]
    expected = frame.setdefault("height", height), frame.setdefault("width", width)
    if expected != (height, width):
        raise ValueError(
            f"the frame {frame['file_name']} is {width} x {height} (width x height), but its video "
            f"{frame.get('video_id', '')} is {expected[1]} x {expected[0]}; all frames of a video "
            "must have the same size"
        )
    return image


def semantic_clip(frames: list[Augmented]) -> ClipTarget:
    """One instance for each class of the clip; its id is the class id."""
    targets = [semantic_target(frame) for frame in frames]
    classes = sorted(set().union(*(classes for classes, _ in targets)))
    return classes, classes, [IdMapMasks(masks.packed, classes) for _, masks in targets]


def instance_clip(frames: list[Augmented]) -> ClipTarget:
    """One instance for each object of the clip that is not a crowd."""
    by_frame = [
        {note["id"]: note for note in objects(needed(frame.record, "annotations"))}
        for frame in frames
    ]
    classes = {i: note["category_id"] for notes in by_frame for i, note in notes.items()}
    masks = []
    for frame, notes in zip(frames, by_frame, strict=True):
        rows = [notes.get(i, {"category_id": classes[i], "segmentation": []}) for i in classes]
        aligned = replace(frame, record=frame.record | {"annotations": rows})
        masks.append(instance_target(aligned)[1])
    return list(classes), list(classes.values()), masks


def _video_paths(record: dict) -> list[str]:
    """The files of a video's frames; ValueError if it has none."""
    if "file_names" not in record:
        raise ValueError(
            f"the record of {record.get('file_name', 'a video')} has no file_names, the frames of "
            "a video; for images, set INPUT.DATASET_MAPPER_NAME to a mapper of images"
        )
    if not record["file_names"]:
        raise ValueError(
            f"the video {record.get('video_id', '')} is empty: its file_names has no frame; remove "
            "its record"
        )
    return record["file_names"]
