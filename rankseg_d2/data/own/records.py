"""The records of a split of an own data set."""

import os
from collections import Counter
from pathlib import Path

from ...tasks import OWN_LABELS, find
from ..formats.label_images import present_values, read_segment_ids
from ..formats.video_frames import natural_order
from ..formats.youtube_vis import check_frames
from .description import OwnData
from .pairing import (
    IMAGES,
    Fault,
    Pairs,
    choose,
    files_below,
    segment_faults,
    video_folders,
    video_record,
)
from .recognize import advice
from .splits import Split


def load_split(data: OwnData, split: Split) -> list[dict]:
    """The detectron2 records of a split, for DatasetCatalog; ValueError unless all files pair."""
    records, faults = find_records(data, split)
    if not records and (other := _other_format(data, split)):
        raise ValueError(f"{data.path}, split {split.name}: {other}")
    if faults:
        raise ValueError(f"{data.path}, split {split.name}: {_summary(faults)}; fix the file names "
                         "(image_suffix and label_suffix are what a pair does not share), or list "
                         "the good images in a file and name it in splits; `rankseg-d2 dataset "
                         f"check {data.path}` lists all faults")
    if not records:
        raise ValueError(f"{data.path}: {why_empty(data, split)}")
    if data.kind == "video_instances":
        check_frames(records)
    elif split.labels is not None and (data.kind == "panoptic" or split.shapes == "json"):
        _check_first(records[0], split)
    return records


def find_records(data: OwnData, split: Split) -> Pairs:
    """Records of all pairs, sorted by name, and a fault for each file without its pair."""
    if split.labels is None:
        return _without_labels(data, split)
    return find(OWN_LABELS[split.kind].find_records)(data, split)


def why_empty(data: OwnData, split: Split) -> str:
    """Why a split has no record, and what to do."""
    what = "video" if split.kind.startswith("video") else "image"
    if isinstance(split.chosen, Path):
        return f"the split {split.name!r} is empty: list at least one {what} in {split.chosen}"
    total = 0
    if split.chosen is not None:
        total = len(find_records(data, split._replace(chosen=None))[0])
    if not total:
        if other := _other_format(data, split):
            return other
        found = f" with a label in {split.labels}" if split.labels else ""
        return (f"the split {split.name!r} is empty: {split.images} has no {what}{found}; name "
                "other folders in images, labels or splits")
    start, end = split.chosen
    return (f"no {what} of {split.images} falls into the part {split.name!r} ({end - start:g} of "
            f"{total} {what}s): make the part larger, or list its names in a file")


def _other_format(data: OwnData, split: Split) -> str:
    """What the labels of a split are, if they are of another format than the yaml says."""
    if split.labels is None or split.labels.is_file():
        return ""
    if find_records(data, split._replace(chosen=None))[0]:
        return ""
    other = advice(split.labels)
    is_other = other and not (split.shapes and split.shapes in other.lower())
    return f"no image has a label, but {other}" if is_other else ""


def _summary(faults: list[Fault]) -> str:
    """The number of faults of each kind, with the first file."""
    first = {fault.kind: fault for fault in reversed(faults)}
    counts = Counter(fault.kind for fault in faults)
    return "; ".join(f"{count} times {kind}, such as {first[kind].file}"
                     + (f" ({first[kind].text})" if first[kind].text else "")
                     for kind, count in counts.items())


def _without_labels(data: OwnData, split: Split) -> Pairs:
    """The images or videos of a split that has no labels."""
    if split.kind.startswith("video"):
        videos = video_folders(split.images)
        names, faults = choose(videos, split)
        frames = {name: files_below(videos[name], data.image_suffix, IMAGES) for name in names}
        faults += [Fault("empty video", str(videos[name])) for name in names if not frames[name]]
        paths = {name: [files[key] for key in sorted(files, key=natural_order)]
                 for name, files in frames.items() if files}
        return [video_record(name, files) for name, files in paths.items()], faults
    images = files_below(split.images, data.image_suffix, IMAGES)
    names, faults = choose(images, split, data.image_suffix)
    return [{"file_name": images[name], "image_id": name} for name in names], faults


def _check_first(record: dict, split: Split) -> None:
    """Raise an error if the files of the first record do not fit the json."""
    fix = f"; name the folders that belong to {split.labels}"
    for key in {"file_name", "pan_seg_file_name"} & record.keys():
        if not os.path.isfile(record[key]):
            raise FileNotFoundError(f"{split.labels} names {record[key]}, which does not exist"
                                    + fix)
    if split.kind == "panoptic":
        ids = present_values(read_segment_ids(record["pan_seg_file_name"]))
        for fault in segment_faults(record, ids):
            raise ValueError(f"{split.labels} does not belong to {split.segments}: {fault}{fix}")
