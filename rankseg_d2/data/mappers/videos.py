"""Videos: clips of a few frames to learn from, and whole videos to predict.

A frame is mapped as an image is (`mapper.py`). What is drawn for the first frame of a clip, scale,
flip, crop, colours, is done to all of them, and an object or class is the same row in every frame.
"""

import random
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from detectron2.data import transforms as T

from ...tasks import LABEL_KEYS, TASKS, VIDEO_LABEL_KEYS, find
from ..formats.video_frames import LazyFrames, frame_record, frame_records, image_size
from .images import TestMapper, TrainMapper, present_classes, read_image, to_tensor
from .packed_masks import IdMapMasks
from .targets import Augmented, instance_target, needed, objects, semantic_target

NOT_IN_SAMPLES = LABEL_KEYS | set(VIDEO_LABEL_KEYS.values())  # keys of a record


@dataclass(frozen=True)
class FrameSampler:
    """Which frames of a video are a clip: calls with a number of frames give their indices.

    A reference frame, and `number` - 1 others up to `reach` frames before or after it, drawn with
    replacement as upstream draws them; or, unless `is_random`, one every `interval` frames. They
    are in the order of time unless `shuffle`. A video that is too short repeats a frame.
    """

    number: int
    reach: int
    interval: int
    is_random: bool
    shuffle: bool

    @classmethod
    def from_config(cls, cfg):
        keys = cfg.INPUT
        for key, lowest in (("FRAME_NUM", 1), ("FRAME_RANGE", 0), ("INTERVAL", 1)):
            if keys[f"SAMPLING_{key}"] < lowest:
                raise ValueError(
                    f"INPUT.SAMPLING_{key} must be {lowest} or more, not {keys[f'SAMPLING_{key}']}"
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

    Row n of every frame's instances is the same object, or class if the task is semantic. Its
    `gt_classes` is its class, its `gt_ids` its id, or -1 in frames that do not show it; what no
    frame shows is left out.
    """

    def __init__(self, sample_frames: FrameSampler, task: str, *args, **kwargs):
        super().__init__(task, *args, **kwargs)
        self.sample_frames = sample_frames
        self.clip_target = find(TASKS[task].clip_target)

    @staticmethod
    def read(frame: dict) -> np.ndarray:
        return read_frame(frame)

    def map(self, record: dict) -> dict:
        sample = {key: x for key, x in record.items() if key not in NOT_IN_SAMPLES}
        chosen = self.sample_frames(len(video_paths(record)))
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
        for frame, masks_of_frame, is_there in zip(frames, masks, present, strict=True):
            instances = self.instances(frame, classes, masks_of_frame)
            instances.gt_ids = torch.tensor(ids, dtype=torch.int64).where(is_there, -1)
            sample["instances"].append(instances[present.any(0)])
        return sample


class ClipTestMapper(TestMapper):
    """A whole video, of which `image` reads each frame when that is asked for (`LazyFrames`)."""

    def __call__(self, record: dict) -> dict:
        sample = {key: value for key, value in record.items() if key != "annotations"}
        paths = video_paths(record)
        if "height" not in record or "width" not in record:
            sample["height"], sample["width"] = image_size(paths[0])
        video = {key: sample[key] for key in ("video_id", "height", "width") if key in sample}
        sample["image"] = LazyFrames(
            paths,
            partial(
                resized_frame,
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


def resized_frame(path: str, video: dict, augmentations, image_format: str) -> torch.Tensor:
    """One frame of a video, resized: (3, H, W)."""
    aug_input = T.AugInput(read_frame({"file_name": path} | video))
    augmentations(aug_input)
    return to_tensor(aug_input.image, image_format)


def read_frame(frame: dict) -> np.ndarray:
    """Its RGB image (H, W, 3), of the size that its record says, or else is made to say."""
    image = read_image({"file_name": frame["file_name"]})
    height, width = image.shape[:2]
    said = frame.setdefault("height", height), frame.setdefault("width", width)
    if said != (height, width):
        raise ValueError(
            f"the frame {frame['file_name']} is {width} x {height} (width x height), but its video "
            f"{frame.get('video_id', '')} is {said[1]} x {said[0]}; all frames of a video must be "
            "of one size, which its record says"
        )
    return image


def semantic_clip(frames: list[Augmented]):
    """Ids, class ids, and masks of each frame: one instance for each class of the clip."""
    targets = [semantic_target(frame) for frame in frames]
    classes = sorted(set().union(*(classes for classes, _ in targets)))
    return classes, classes, [IdMapMasks(masks.packed, classes) for _, masks in targets]


def instance_clip(frames: list[Augmented]):
    """Ids, class ids, and masks of each frame: one instance for each object that is no crowd."""
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


def video_paths(record: dict) -> list[str]:
    """The files of a video's frames, at least one."""
    if "file_names" not in record:
        raise ValueError(
            f"the record of {record.get('file_name', 'a video')} has no file_names, the frames of "
            "a video; of an image, INPUT.DATASET_MAPPER_NAME must be another one"
        )
    if not record["file_names"]:
        raise ValueError(
            f"the video {record.get('video_id', '')} is empty, for its record has no frame in "
            "file_names; leave it out"
        )
    return record["file_names"]
